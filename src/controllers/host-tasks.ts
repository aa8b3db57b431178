import limitConcurrency from 'p-limit';
import type { Logger } from '../lib/logger.ts';
import { TimeoutError, withTimeout } from '../lib/with-timeout.ts';
import { createBackoff } from './backoff.ts';

/** Runs the same act for many hosts, so that the trouble of one neither stops nor delays that of another. */
export interface HostTasks {
  /**
   * Runs `act` for each of these hosts, several at a time. A host whose act keeps failing waits before the next try; a
   * host whose act has not ended is left out until it has.
   * @returns when every act has ended, or has run into the deadline; it never rejects.
   */
  run(hostIds: readonly string[], act: (hostId: string) => Promise<void>): Promise<void>;
}

/** More at once would only make each of them slower. */
const actsAtOnce = 8;
/** A hanging act no longer delays others after this time. Milliseconds. */
const usualDeadlineMs = 30_000;

/**
 * @param deps.failed the log message for an act that has failed: what failed, and what comes next.
 * @param deps.deadlineMs how long a hanging act may delay others, in milliseconds.
 */
export function createHostTasks(deps: {
  readonly failed: string;
  readonly logger: Logger;
  readonly deadlineMs?: number;
}): HostTasks {
  const { failed, logger, deadlineMs = usualDeadlineMs } = deps;
  const running = new Set<string>();
  const backoff = createBackoff({ message: failed, logger });

  async function runOne(host: string, act: (hostId: string) => Promise<void>): Promise<void> {
    running.add(host);
    const ended = act(host)
      .then(
        () => {
          backoff.succeeded(host);
        },
        (error: unknown) => {
          backoff.failed(host, error);
        },
      )
      .finally(() => running.delete(host));
    await withTimeout(deadlineMs, 'the act', ended).catch((error: unknown) => {
      if (!(error instanceof TimeoutError)) throw error;
      logger.error(
        { host },
        `An act on a host has not ended within ${deadlineMs / 1000} s; other hosts continue without it`,
      );
    });
  }

  return {
    async run(hostIds, act) {
      backoff.keepOnly(new Set(hostIds));
      const due = hostIds.filter((host) => !running.has(host) && backoff.isDue(host));
      const limit = limitConcurrency(actsAtOnce);
      await Promise.all(due.map((host) => limit(() => runOne(host, act))));
    },
  };
}
