import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';

/** When an act on a host that keeps failing is tried again. */
export interface Backoff {
  isDue(hostId: string): boolean;
  /** Whether the last act on the host has failed. */
  hasFailed(hostId: string): boolean;
  /** Each cause is logged once per host, until an act has succeeded again. */
  failed(hostId: string, error: unknown): void;
  /** Also for a host that is gone. */
  succeeded(hostId: string): void;
  /** Forgets all other hosts. */
  keepOnly(hostIds: ReadonlySet<string>): void;
}

/** After the second failure in a row, doubled with each; the first retry comes with the next round. Milliseconds. */
const firstPauseMs = 5_000;
const longestPauseMs = 5 * 60_000;

/** @param deps.message of the log: what failed, and what comes next. */
export function createBackoff(deps: { readonly message: string; readonly logger: Logger }): Backoff {
  const { message, logger } = deps;
  /** `notBefore` is a `performance.now()`. */
  const troubles = new Map<string, { failures: number; notBefore: number; cause: string }>();
  return {
    isDue: (host) => performance.now() >= (troubles.get(host)?.notBefore ?? 0),
    hasFailed: (host) => troubles.has(host),
    failed(host, error) {
      const before = troubles.get(host);
      const failures = (before?.failures ?? 0) + 1;
      const pauseMs = failures === 1 ? 0 : Math.min(longestPauseMs, firstPauseMs * 2 ** (failures - 2));
      const cause = errorMessage(error);
      troubles.set(host, { failures, notBefore: performance.now() + pauseMs, cause });
      if (before?.cause !== cause) logger.error({ host, err: error }, message);
    },
    succeeded(host) {
      troubles.delete(host);
    },
    keepOnly(hosts) {
      for (const host of troubles.keys()) if (!hosts.has(host)) troubles.delete(host);
    },
  };
}
