import { randomBytes } from 'node:crypto';
import type { Knex } from 'knex';
import { refused } from '../core/errors.ts';
import {
  credentialDigest,
  type KnownCredential,
  type Platform,
  type PlatformCredential,
  type Platforms,
} from '../core/ports/platforms.ts';
import { channels } from './channels.ts';
import type { Listener } from './listener.ts';
import { notify } from './notify.ts';

const namePattern = /^[a-z0-9][a-z0-9._-]{0,49}$/;
const mostPasswords = 2;

/** Records a platform under a name, once. */
export async function ensurePlatform(database: Knex, name: string): Promise<Platform> {
  await database.raw(
    'INSERT INTO platforms (id, name) VALUES (gen_random_uuid(), ?) ON CONFLICT DO NOTHING',
    [name],
  );
  return { id: await requirePlatform(database, name), name };
}

/** Platforms as operators see and change them. Every api process hears of a change and reads it. */
export function createPlatforms(database: Knex): Platforms {
  async function insertPassword(
    transaction: Knex,
    platformId: string,
    username: string,
  ): Promise<PlatformCredential> {
    const password = randomBytes(32).toString('base64url');
    await transaction('platform_passwords').insert({
      platform_id: platformId,
      digest: credentialDigest(username, password),
    });
    await notify(transaction, channels.platforms, platformId);
    return { username, password };
  }

  return {
    async list() {
      const { rows } = await database.raw<{
        rows: { name: string; created_at: Date; passwords: number; instances: number }[];
      }>(
        `SELECT name, created_at,
           (SELECT count(*)::integer FROM platform_passwords WHERE platform_id = platforms.id) AS passwords,
           (SELECT count(*)::integer FROM instances
            WHERE platform_id = platforms.id AND state <> 'deleted') AS instances
         FROM platforms ORDER BY name`,
      );
      return rows.map((row) => ({
        name: row.name,
        createdAt: row.created_at,
        passwords: row.passwords,
        instances: row.instances,
      }));
    },

    create: (name) =>
      database.transaction(async (transaction) => {
        if (!namePattern.test(name)) {
          throw refused.badRequest(
            'name: must have up to 50 characters out of a-z, 0-9, ".", "_" and "-", and begin with a letter or digit.',
          );
        }
        const rows: { id: string }[] = await transaction('platforms')
          .insert({ id: transaction.raw('gen_random_uuid()'), name })
          .onConflict('name')
          .ignore()
          .returning('id');
        const id = rows[0]?.id;
        if (id === undefined) throw refused.conflict(`name: there is a platform ${name} already.`);
        return insertPassword(transaction, id, name);
      }),

    addPassword: (name) =>
      database.transaction(async (transaction) => {
        const id = await requirePlatform(transaction, name, 'lock');
        if ((await passwordsOf(transaction, id)).length >= mostPasswords) {
          throw refused.conflict(
            `Platform ${name} has two valid passwords already. Retire the older one first.`,
          );
        }
        return insertPassword(transaction, id, name);
      }),

    retirePassword: (name) =>
      database.transaction(async (transaction) => {
        const id = await requirePlatform(transaction, name, 'lock');
        const [oldest, next] = await passwordsOf(transaction, id);
        if (oldest === undefined || next === undefined) {
          throw refused.conflict(
            `Platform ${name} would be left without a password. Add one first, and give it to the platform.`,
          );
        }
        await transaction('platform_passwords').where({ id: oldest }).delete();
        await notify(transaction, channels.platforms, id);
      }),
  };
}

/** Ids, the oldest first. */
async function passwordsOf(transaction: Knex, platformId: string): Promise<string[]> {
  const rows: { id: string }[] = await transaction('platform_passwords')
    .where({ platform_id: platformId })
    .orderBy('created_at')
    .select('id');
  return rows.map(({ id }) => id);
}

async function requirePlatform(connection: Knex, name: string, lock?: 'lock'): Promise<string> {
  const query = connection<{ id: string; name: string }>('platforms').where({ name }).first('id');
  if (lock !== undefined) void query.forUpdate();
  // What can be no name is not asked for: Postgres refuses a NUL.
  const row = namePattern.test(name) ? await query : undefined;
  if (row === undefined) throw refused.notFound(`There is no platform ${name.slice(0, 60)}.`);
  return row.id;
}

/** The credentials that are valid now, kept true by notifications. */
export interface CredentialDirectory {
  known(): readonly KnownCredential[];
  stop(): void;
}

/** How long a password that was retired may stay valid where the listener's connection is dead and does not know it. */
const rereadEveryMs = 5_000;

/**
 * Reads the credentials of all platforms, and reads them again whenever they may have changed, and now and then.
 * @param parts.fixed come from files, and stay.
 */
export async function createCredentialDirectory(parts: {
  database: Knex;
  listener: Listener;
  fixed: readonly KnownCredential[];
  onError: (error: unknown) => void;
  everyMs?: number;
}): Promise<CredentialDirectory> {
  const { database, listener, fixed, onError, everyMs = rereadEveryMs } = parts;
  let known = fixed;
  let newest = 0;
  let stopped = false;

  async function read(): Promise<void> {
    newest += 1;
    const mine = newest;
    const rows: { digest: Buffer; id: string; name: string }[] = await database('platform_passwords')
      .join('platforms', 'platforms.id', 'platform_passwords.platform_id')
      .select('digest', 'platforms.id', 'name');
    // A slower read that began earlier must not bring back a retired password.
    if (mine === newest) {
      known = [...fixed, ...rows.map(({ digest, id, name }) => ({ digest, platform: { id, name } }))];
    }
  }

  await read();
  const again = () => {
    read().catch((error: unknown) => {
      if (!stopped) onError(error);
    });
  };
  const ends = [listener.on(channels.platforms, again), listener.onReconnected(again)];
  const timer = setInterval(again, everyMs);
  return {
    known: () => known,
    stop() {
      stopped = true;
      clearInterval(timer);
      for (const end of ends) end();
    },
  };
}
