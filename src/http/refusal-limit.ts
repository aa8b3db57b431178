const perMinute = 60;

export interface RefusalLimit {
  /** False if the request exceeds the limit: then it is only counted. */
  admits(): boolean;
  /** Returns the number of requests that were only counted, and sets it to 0. */
  takeSkipped(): number;
  /** Counts requests again whose number could not be recorded. */
  addSkipped(count: number): void;
}

/**
 * Limits what is written about requests that cost a caller nothing (unauthenticated, or 429) to 60 rows of the audit
 * trail, or lines of the log, per minute, so that a flood of them does not fill the disk.
 * @param now milliseconds of a monotonic clock.
 */
export function createRefusalLimit(now: () => number): RefusalLimit {
  let minute = 0;
  let inMinute = 0;
  let skipped = 0;
  return {
    admits() {
      const current = Math.floor(now() / 60_000);
      if (current !== minute) [minute, inMinute] = [current, 0];
      inMinute += 1;
      if (inMinute <= perMinute) return true;
      skipped += 1;
      return false;
    },
    takeSkipped() {
      const count = skipped;
      skipped = 0;
      return count;
    },
    addSkipped(count) {
      skipped += count;
    },
  };
}
