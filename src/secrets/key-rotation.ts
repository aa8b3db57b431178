import { refused } from '../core/errors.ts';
import type { Logger } from '../lib/logger.ts';
import type { KeyRotation, MasterKeyEvents, MasterKeyStore } from '../core/ports/master-keys.ts';
import type { Presence, Presences } from '../core/ports/presence.ts';
import type { SealedData } from '../core/ports/sealed-data.ts';
import type { KeyRing } from './key-ring.ts';
import { type MasterKey, masterKeysFromText } from './master-key.ts';
import { repeat } from '../lib/repeat.ts';

/** An api looks at least this often whether it should seal with another key. Milliseconds. */
const lookAgainMs = 5_000;
/** How long every api is given to read a new key. Milliseconds. */
const takeUpMs = 7_000;
/** A request that had sealed with the former key before it heard of the new one has ended by then. Milliseconds. */
const defaultSettleMs = 60_000;

/**
 * Keeps this api's ring in step with the other apis', and wraps anew what a retiring key has sealed.
 * @param parts.readText gives the text of the master key file as it is now.
 */
export function startKeyRotation(parts: {
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
  const { store, events, sealedData, ring, presence, presences, readText, logger } = parts;
  const { settleMs = defaultSettleMs } = parts;
  let stopped = false;
  /** Rows that could not be wrapped anew. */
  let unreadable: readonly string[] = [];
  let looking: Promise<void> = Promise.resolve();

  /** Seals with the key that Postgres names, and tells the others which keys are held here. */
  async function follow(): Promise<void> {
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

  async function finish(): Promise<void> {
    const retiring = (await store.list()).filter(({ state }) => state === 'retiring');
    if (retiring.length === 0) return;
    const settled = retiring.filter(({ since }) => Date.now() - since.getTime() > settleMs);
    const { replaced: count, damaged } = await sealedData.rewrapAll(
      (sealed, row) => ring.rewrap(sealed, row),
      () => stopped,
    );
    if (count > 0) logger.info({ count }, 'Secrets were wrapped anew under the current master key');
    if (damaged.join() !== unreadable.join()) {
      unreadable = damaged;
      if (damaged.length > 0) {
        logger.error(
          { rows: damaged.slice(0, 100), count: damaged.length },
          'What is sealed in these rows can not be opened and was left; the former master key is kept until they are restored or unbound',
        );
      }
    }
    if (stopped || settled.length === 0 || damaged.length > 0) return;
    const ids = settled.map(({ id }) => id);
    await store.retire(ids);
    logger.info({ keys: ids }, 'Nothing is sealed any more with former master keys');
  }

  const look = () => {
    looking = looking
      .then(async () => {
        if (stopped) return;
        await follow();
        await finish();
      })
      .catch((error: unknown) => {
        logger.error({ err: error }, 'The master keys could not be brought in step; it is tried again');
      });
    return looking;
  };
  const heard = () => {
    // Another api may be waiting for us to read a key that it has just been given.
    looking = looking
      .then(async () => {
        if (stopped) return;
        await readKeys().catch((error: unknown) => {
          logger.warn({ err: error }, 'The master key file could not be read again');
        });
        await follow();
      })
      .catch((error: unknown) => {
        logger.error({ err: error }, 'The master keys could not be brought in step; it is tried again');
      });
  };
  const unsubscribes = [events.onChange(() => void look()), events.onRereadRequested(heard)];
  const stopLooking = repeat(lookAgainMs, look, () => undefined);

  return {
    list: async () =>
      (await store.list()).map((key) =>
        key.state === 'retiring' && unreadable.length > 0 ? { ...key, unreadable: unreadable.length } : key,
      ),

    async rotate() {
      const known = await store.list();
      if (known.some(({ state }) => state === 'retiring')) {
        throw refused.conflict('A rotation of the master key is under way. Wait until it has ended.');
      }
      const fresh = (await readKeys()).filter(
        ({ id }) => !known.some((one) => one.id === id.toString('hex')),
      );
      const [next, another] = fresh.map(({ id }) => id.toString('hex'));
      if (next === undefined) {
        throw refused.conflict('The master key file holds no new key. Add one as a line of its own.');
      }
      if (another !== undefined) {
        throw refused.conflict('The master key file holds more than one new key. Leave one of them.');
      }
      await presence.announce(ring.ids());
      await events.requestReread(next);
      if (!(await presences.waitForAll('api', next, takeUpMs))) {
        throw refused.conflict(
          `Not every api holds the new master key ${next}: put it into the master key file of each machine, restart those apis that run without "npm start", and try again. Nothing was changed.`,
        );
      }
      await store.promote(next);
      await follow();
      void look();
      return store.list();
    },

    async stop() {
      stopped = true;
      for (const unsubscribe of unsubscribes) unsubscribe();
      await stopLooking();
      await looking;
      await presence.leave().catch(() => undefined);
    },
  };
}
