import type { LiveBindingsSource } from '../core/ports/live-bindings.ts';
import type { Logger } from '../lib/logger.ts';
import { within } from './deadline.ts';
import type { Lease } from './lease.ts';
import type { LiveCache } from './live-cache.ts';
import { createSession, type Session } from './session.ts';

/** Keeps the cache true, over as many connections to the source as that takes. */
export interface BindingSync {
  /** Begins. Resolves once the first attempt has succeeded or failed; further ones follow by themselves. */
  start(): Promise<void>;
  /** Gives the lease back and lets go of the source. What is open must have been cut before. */
  stop(): Promise<void>;
  /** True while the cache is known to be true. */
  inSync(): boolean;
  /** The lease has run out: what was known is not certain any more. */
  leaseLost(): void;
  /**
   * Asks the database for a serial that the cache does not know.
   * @returns false where it could not be asked: too many others are being asked for, or it does not answer.
   */
  lookUp(serial: string): Promise<boolean>;
}

/** Milliseconds until the next attempt: doubled after each failure. */
const firstRetryMs = 100;
const longestRetryMs = 2_000;

/** How long a source may take to let go. Milliseconds. */
const closeTimeoutMs = 1_000;

export function createBindingSync(parts: {
  source: LiveBindingsSource;
  cache: LiveCache;
  lease: Lease;
  leaseMs: number;
  renewEveryMs: number;
  maxLookUps: number;
  lookUpTimeoutMs: number;
  logger: Logger;
}): BindingSync {
  const { source, logger } = parts;
  const lookUps = new Map<string, Promise<boolean>>();
  let session: Session | undefined;
  /** True while the session has brought the cache up to date and keeps it so. */
  let synced = false;
  let stopped = false;
  const isStopped = () => stopped;
  let wake: () => void = () => undefined;
  let running: Promise<void> = Promise.resolve();

  /** One connection, from its beginning to its loss. Returns whether it was ever in sync. */
  async function once(attemptEnded: () => void): Promise<boolean> {
    session = createSession(parts);
    try {
      await session.begin();
      synced = true;
      logger.info({ bindingsHeld: parts.cache.size() }, 'in sync with Postgres: serving');
      attemptEnded();
      const reason = await session.ended;
      if (!isStopped()) {
        logger.warn(
          { err: reason },
          'out of sync with Postgres: new connections are refused until it is back',
        );
      }
      return true;
    } catch (error) {
      session.fail(error);
      if (!isStopped()) {
        logger.warn({ err: error }, "can't get in sync with Postgres: connections are refused, trying again");
      }
      attemptEnded();
      return false;
    } finally {
      synced = false;
      await within(closeTimeoutMs, 'closing', source.close()).catch((error: unknown) => {
        logger.debug({ err: error }, 'the connection to Postgres could not be closed in order');
      });
    }
  }

  async function keep(attemptEnded: () => void): Promise<void> {
    let retryMs = firstRetryMs;
    while (!isStopped()) {
      retryMs = (await once(attemptEnded)) ? firstRetryMs : Math.min(retryMs * 2, longestRetryMs);
      if (!isStopped()) await pause(retryMs);
    }
  }

  /** Waits, unless it is stopped meanwhile. */
  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async function ask(session: Session, serial: string): Promise<boolean> {
    try {
      await within(parts.lookUpTimeoutMs, 'looking up a certificate', session.lookUp(serial));
      return true;
    } catch (error) {
      logger.warn({ err: error }, 'a certificate could not be looked up');
      return false;
    } finally {
      lookUps.delete(serial);
    }
  }

  return {
    start: () =>
      new Promise((resolve) => {
        running = keep(resolve);
      }),
    async stop() {
      stopped = true;
      parts.lease.drop();
      if (synced) {
        await within(closeTimeoutMs, 'releasing the lease', source.releaseLease()).catch((error: unknown) => {
          logger.warn({ err: error }, 'the lease could not be given back: unbinds wait for its end');
        });
      }
      session?.fail(new Error('stopped'));
      wake();
      await running;
    },
    inSync: () => synced && parts.lease.holds(),
    leaseLost() {
      if (synced) session?.fail(new Error('the lease ran out before it was renewed'));
      synced = false;
    },
    lookUp(serial) {
      if (session === undefined || !synced) return Promise.resolve(false);
      const asked = lookUps.get(serial);
      if (asked !== undefined) return asked;
      if (lookUps.size >= parts.maxLookUps) return Promise.resolve(false);
      const asking = ask(session, serial);
      lookUps.set(serial, asking);
      return asking;
    },
  };
}
