import { refused } from '../core/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { KeyRotation, MasterKeyEvents, MasterKeyStore } from '../core/ports/master-keys.ts';
import type { Presence, Presences } from '../core/ports/presence.ts';
import type { SealedData } from '../core/ports/sealed-data.ts';
import type { KeyRing } from './key-ring.ts';
import { type MasterKey, masterKeysFromText } from './master-key.ts';
import { repeat } from '../lib/repeat.ts';

/** Between two comparisons with Postgres without a notification; also renews the presence. Milliseconds. */
const followMs = 5_000;
/** How long to wait until every api has read a new key. Milliseconds. */
const apisTimeoutMs = 7_000;
/** After this time no request that began with the former key is still running. Milliseconds. */
const defaultSettleMs = 60_000;

/**
 * Follows and performs rotations of the master key: seals with the current key and rewraps what a retiring key has
 * sealed. The cryptography is in envelope.ts.
 * @param deps.readText returns the present text of the master key file.
 */
export function startKeyRotation(deps: {
  store: MasterKeyStore;
  events: MasterKeyEvents;
  sealedData: SealedData;
  ring: KeyRing;
  presence: Presence;
  presences: Pick<Presences, 'waitForAll'>;
  readText: () => Promise<string>;
  logger: Logger;
  settleMs?: number;
}): KeyRotation & { stop(): Promise<void> } {
  const { store, events, sealedData, ring, presence, presences, readText, logger } = deps;
  const { settleMs = defaultSettleMs } = deps;
  let stopped = false;
  /** Rows that could not be rewrapped. */
  let unreadable: readonly string[] = [];
  let queue: Promise<void> = Promise.resolve();

  /** Seals with the key that Postgres names, and announces to the other apis which keys this one has. */
  async function sealWithCurrent(): Promise<void> {
    const current = (await store.list()).find(({ state }) => state === 'current');
    if (current !== undefined && !ring.ids().includes(current.id)) await readKeys();
    if (current !== undefined) ring.sealWith(current.id);
    await presence.announce(ring.ids());
  }

  async function readKeys(): Promise<readonly MasterKey[]> {
    const keys = masterKeysFromText(await readText());
    ring.add(keys);
    return keys;
  }

  async function rewrapAndRetire(): Promise<void> {
    const retiring = (await store.list()).filter(({ state }) => state === 'retiring');
    if (retiring.length === 0) return;
    const settled = retiring.filter(({ since }) => Date.now() - since.getTime() > settleMs);
    const { replaced: count, damaged } = await sealedData.rewrapAll(
      (sealed, row) => ring.rewrap(sealed, row),
      () => stopped,
    );
    if (count > 0) logger.info({ count }, 'Rewrapped secrets with the current master key');
    if (damaged.join() !== unreadable.join()) {
      unreadable = damaged;
      if (damaged.length > 0) {
        logger.error(
          { rows: damaged.slice(0, 100), count: damaged.length },
          'Secrets in these rows are unreadable and were skipped; the former master key stays in use until the rows are restored, or deleted with their binding',
        );
      }
    }
    if (stopped || settled.length === 0 || damaged.length > 0) return;
    const ids = settled.map(({ id }) => id);
    await store.retire(ids);
    logger.info({ keys: ids }, 'Retired former master keys: nothing is sealed with them any more');
  }

  const follow = () => {
    queue = queue
      .then(async () => {
        if (stopped) return;
        await sealWithCurrent();
        await rewrapAndRetire();
      })
      .catch((error: unknown) => {
        logger.error({ err: error }, `Following the master keys failed; retrying in ${followMs / 1000} s`);
      });
    return queue;
  };
  // Another api waits until this one has read a new key.
  const reread = () => {
    queue = queue
      .then(async () => {
        if (stopped) return;
        await readKeys().catch((error: unknown) => {
          logger.warn(
            { err: error },
            'Reading the master key file again failed; continuing with the known keys',
          );
        });
        await sealWithCurrent();
      })
      .catch((error: unknown) => {
        logger.error({ err: error }, `Following the master keys failed; retrying in ${followMs / 1000} s`);
      });
  };
  const unsubscribes = [events.onChange(() => void follow()), events.onRereadRequested(reread)];
  const stopFollowing = repeat(followMs, follow, () => undefined);

  return {
    list: async () =>
      (await store.list()).map((key) =>
        key.state === 'retiring' && unreadable.length > 0 ? { ...key, unreadable: unreadable.length } : key,
      ),

    async rotate() {
      const known = await store.list();
      if (known.some(({ state }) => state === 'retiring')) {
        throw refused.conflict('A rotation of the master key is in progress: wait until it has ended.');
      }
      const fresh = (await readKeys()).filter(
        ({ id }) => !known.some((one) => one.id === id.toString('hex')),
      );
      const [next, another] = fresh.map(({ id }) => id.toString('hex'));
      if (next === undefined) {
        throw refused.conflict('The master key file contains no new key: add one on a separate line.');
      }
      if (another !== undefined) {
        throw refused.conflict('The master key file contains more than one new key: remove all but one.');
      }
      await presence.announce(ring.ids());
      await events.requestReread(next);
      if (!(await presences.waitForAll('api', next, apisTimeoutMs))) {
        throw refused.conflict(
          `Not every api has the new master key ${next}: add it to the master key file on every node, restart those apis that run without "npm start", and try again. Nothing was changed.`,
        );
      }
      await store.promote(next);
      await sealWithCurrent();
      void follow();
      return store.list();
    },

    async stop() {
      stopped = true;
      for (const unsubscribe of unsubscribes) unsubscribe();
      await stopFollowing();
      await queue;
      await presence.leave().catch(() => undefined);
    },
  };
}
