import { LoadFailedError } from '../launch/load-failed-error.ts';

/** A template is not used for this long after a failed restore, doubled with each one in a row. Milliseconds. */
const firstPauseMs = 5_000;
const longestPauseMs = 5 * 60_000;
/** A template that QEMU has refused this often in a row is bad, although its files are those that were recorded. */
const refusalsOfBad = 3;

/**
 * What follows a failed restore. A busy node, a full disk or a killed QEMU is not the template's fault: it is used again
 * after a pause, during which hosts boot cold.
 */
export interface RestoreFailures {
  isPausing(key: string): boolean;
  /** @returns the pause in milliseconds; `bad` if the template is to be made again; undefined if it pauses already. */
  failed(key: string, error: unknown): number | 'bad' | undefined;
  /** @returns whether the last restore had failed. */
  succeeded(key: string): boolean;
}

/** @param now in milliseconds. */
export function createRestoreFailures(now: () => number = () => performance.now()): RestoreFailures {
  const failures = new Map<string, { count: number; refusals: number; pausesUntil: number }>();
  const isPausing = (key: string) => now() < (failures.get(key)?.pausesUntil ?? -Infinity);
  return {
    isPausing,
    failed(key, error) {
      // Several restores at a time fail for one reason.
      if (isPausing(key)) return undefined;
      const before = failures.get(key) ?? { count: 0, refusals: 0 };
      const isRefusal = error instanceof LoadFailedError && error.isRefused;
      const refusals = isRefusal ? before.refusals + 1 : 0;
      if (refusals >= refusalsOfBad) {
        failures.delete(key);
        return 'bad';
      }
      const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** before.count);
      failures.set(key, { count: before.count + 1, refusals, pausesUntil: now() + pauseMs });
      return pauseMs;
    },
    succeeded: (key) => failures.delete(key),
  };
}
