import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';

/** When an act that keeps failing is tried again; each on a subject, such as a host. */
export interface Backoff {
  isDue(subject: string): boolean;
  /** Whether the last act on the subject has failed. */
  hasFailed(subject: string): boolean;
  /** Each cause is logged once per subject, until an act has succeeded again. */
  failed(subject: string, error: unknown): void;
  /** Also for a subject that is gone. */
  succeeded(subject: string): void;
  /** Forgets all other subjects. */
  keepOnly(subjects: ReadonlySet<string>): void;
}

/**
 * @param deps.message of the log: what failed, and what comes next.
 * @param deps.subject name of the subject in the log.
 * @param deps.firstPauseMs after the second failure in a row, doubled with each; the first retry comes with the next round.
 */
export function createBackoff(deps: {
  readonly message: string;
  readonly logger: Logger;
  readonly subject?: string;
  readonly firstPauseMs?: number;
  readonly longestPauseMs?: number;
}): Backoff {
  const { message, logger, subject = 'host', firstPauseMs = 5_000, longestPauseMs = 5 * 60_000 } = deps;
  /** `notBefore` is a `performance.now()`. */
  const troubles = new Map<string, { failures: number; notBefore: number; cause: string }>();
  return {
    isDue: (name) => performance.now() >= (troubles.get(name)?.notBefore ?? 0),
    hasFailed: (name) => troubles.has(name),
    failed(name, error) {
      const before = troubles.get(name);
      const failures = (before?.failures ?? 0) + 1;
      const pauseMs = failures === 1 ? 0 : Math.min(longestPauseMs, firstPauseMs * 2 ** (failures - 2));
      const cause = errorMessage(error);
      troubles.set(name, { failures, notBefore: performance.now() + pauseMs, cause });
      if (before?.cause !== cause) logger.error({ [subject]: name, err: error }, message);
    },
    succeeded(name) {
      troubles.delete(name);
    },
    keepOnly(names) {
      for (const name of troubles.keys()) if (!names.has(name)) troubles.delete(name);
    },
  };
}
