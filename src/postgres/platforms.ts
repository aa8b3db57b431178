import type { Knex } from 'knex';
import type { PlatformStore } from '../core/ports/platforms.ts';
import { channels } from './channels.ts';
import { notify } from './notify.ts';

const maxPasswords = 2;

export function createPlatformStore(database: Knex): PlatformStore {
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

    async ensure(name) {
      await database.raw(
        'INSERT INTO platforms (id, name) VALUES (gen_random_uuid(), ?) ON CONFLICT DO NOTHING',
        [name],
      );
      const id = await findPlatform(database, name);
      if (id === undefined) throw new Error(`the platform ${name} was neither inserted nor found`);
      return { id, name };
    },

    insert: (name, digest) =>
      database.transaction(async (transaction) => {
        const rows: { id: string }[] = await transaction('platforms')
          .insert({ id: transaction.raw('gen_random_uuid()'), name })
          .onConflict('name')
          .ignore()
          .returning('id');
        const id = rows[0]?.id;
        if (id === undefined) return false;
        await insertPassword(transaction, id, digest);
        return true;
      }),

    addPassword: (name, digest) =>
      database.transaction(async (transaction) => {
        const id = await findPlatform(transaction, name, 'lock');
        if (id === undefined) return 'not found';
        if ((await passwordsOf(transaction, id)).length >= maxPasswords) return 'two already';
        await insertPassword(transaction, id, digest);
        return 'added';
      }),

    deleteOlderPassword: (name) =>
      database.transaction(async (transaction) => {
        const id = await findPlatform(transaction, name, 'lock');
        if (id === undefined) return 'not found';
        const [oldest, next] = await passwordsOf(transaction, id);
        if (oldest === undefined || next === undefined) return 'only one';
        await transaction('platform_passwords').where({ id: oldest }).delete();
        await notify(transaction, channels.platforms, id);
        return 'deleted';
      }),
  };
}

async function insertPassword(transaction: Knex, platformId: string, digest: Buffer): Promise<void> {
  await transaction('platform_passwords').insert({ platform_id: platformId, digest });
  await notify(transaction, channels.platforms, platformId);
}

/** Ids, the oldest first. */
async function passwordsOf(transaction: Knex, platformId: string): Promise<string[]> {
  const rows: { id: string }[] = await transaction('platform_passwords')
    .where({ platform_id: platformId })
    .orderBy('created_at')
    .select('id');
  return rows.map(({ id }) => id);
}

async function findPlatform(connection: Knex, name: string, lock?: 'lock'): Promise<string | undefined> {
  const query = connection<{ id: string; name: string }>('platforms').where({ name }).first('id');
  if (lock !== undefined) void query.forUpdate();
  return (await query)?.id;
}
