import type { LiveBindingsSource } from '../core/ports/live-bindings.ts';
import type { Logger } from '../lib/logger.ts';
import type { Lease } from './lease.ts';
import type { LiveCache } from './live-cache.ts';
import { createSession, type Session } from './session.ts';
import { withTimeout } from '../lib/with-timeout.ts';

/** Keeps the cache in sync with Postgres: one session after another, each over a new connection. */
export interface BindingSync {
  /** Resolves once the first attempt has succeeded or failed; retries follow in the background. */
  start(): Promise<void>;
  /** Releases the lease and closes the source. All open streams must have been cut before. */
  stop(): Promise<void>;
  /** True while the cache is known to match the database. */
  inSync(): boolean;
  /** To be called when the lease ran out: the cache can't be trusted any more. */
  leaseLost(): void;
  /**
   * Looks up a serial in the database that the cache doesn't contain.
   * @returns false if the look-up failed: too many others are pending, or the database doesn't answer.
   */
  lookUp(serial: string): Promise<boolean>;
}

/** Milliseconds until the next attempt: doubled after each failure. */
const firstRetryMs = 100;
const longestRetryMs = 2_000;

/** Longest time for the source to close or to release the lease. Milliseconds. */
const closeTimeoutMs = 1_000;

export function createBindingSync(deps: {
  source: LiveBindingsSource;
  cache: LiveCache;
  lease: Lease;
  leaseMs: number;
  renewEveryMs: number;
  maxLookUps: number;
  lookUpTimeoutMs: number;
  logger: Logger;
}): BindingSync {
  const { source, logger } = deps;
  /** Pending look-ups by serial. */
  const lookUps = new Map<string, Promise<boolean>>();
  let session: Session | undefined;
  let synced = false;
  let stopped = false;
  const isStopped = () => stopped;
  let endPause: () => void = () => undefined;
  let running: Promise<void> = Promise.resolve();

  /** Runs one session to its end. Returns whether it was ever in sync. */
  async function runSession(firstAttemptEnded: () => void): Promise<boolean> {
    session = createSession(deps);
    try {
      await session.begin();
      synced = true;
      logger.info({ cachedBindings: deps.cache.size() }, 'In sync with Postgres; serving connections');
      firstAttemptEnded();
      const reason = await session.ended;
      if (!isStopped()) {
        logger.warn(
          { err: reason },
          'Out of sync with Postgres; refusing new connections until it is back in sync',
        );
      }
      return true;
    } catch (error) {
      session.fail(error);
      if (!isStopped()) {
        logger.warn({ err: error }, 'Sync with Postgres failed; refusing new connections and retrying');
      }
      firstAttemptEnded();
      return false;
    } finally {
      synced = false;
      await withTimeout(closeTimeoutMs, 'closing', source.close()).catch((error: unknown) => {
        logger.debug({ err: error }, 'Closing the connection to Postgres failed; connection abandoned');
      });
    }
  }

  async function run(firstAttemptEnded: () => void): Promise<void> {
    let retryMs = firstRetryMs;
    while (!isStopped()) {
      retryMs = (await runSession(firstAttemptEnded)) ? firstRetryMs : Math.min(retryMs * 2, longestRetryMs);
      if (!isStopped()) await pause(retryMs);
    }
  }

  /** Waits; `endPause` ends it early. */
  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      endPause = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  async function lookUpIn(current: Session, serial: string): Promise<boolean> {
    try {
      await withTimeout(deps.lookUpTimeoutMs, 'looking up a certificate', current.lookUp(serial));
      return true;
    } catch (error) {
      logger.warn({ err: error }, 'Certificate look-up failed; connection refused');
      return false;
    } finally {
      lookUps.delete(serial);
    }
  }

  return {
    start: () =>
      new Promise((resolve) => {
        running = run(resolve);
      }),
    async stop() {
      stopped = true;
      deps.lease.drop();
      if (synced) {
        await withTimeout(closeTimeoutMs, 'releasing the lease', source.releaseLease()).catch(
          (error: unknown) => {
            logger.warn({ err: error }, 'Releasing the lease failed; unbinds wait until it expires');
          },
        );
      }
      session?.fail(new Error('stopped'));
      endPause();
      await running;
    },
    inSync: () => synced && deps.lease.isValid(),
    leaseLost() {
      if (synced) session?.fail(new Error('the lease ran out before it was renewed'));
      synced = false;
    },
    lookUp(serial) {
      if (session === undefined || !synced) return Promise.resolve(false);
      const pending = lookUps.get(serial);
      if (pending !== undefined) return pending;
      if (lookUps.size >= deps.maxLookUps) return Promise.resolve(false);
      const started = lookUpIn(session, serial);
      lookUps.set(serial, started);
      return started;
    },
  };
}
