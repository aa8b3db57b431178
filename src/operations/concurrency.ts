import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import limitConcurrency from 'p-limit';

/**
 * Limits on CPU-bound work: more at once would only slow down each of them. Steps that wait for a guest or a gateway
 * are not limited, so a tenant's hanging host delays no other tenant.
 */
export interface Concurrency {
  /** Runs a step that ends by itself. */
  limitStep<T>(act: () => Promise<T>): Promise<T>;
  /** Runs the steps of an operation whose guest boots. Its slot is released when it ends, or earlier if it hangs. */
  limitBoot<T>(act: () => Promise<T>): Promise<T>;
}

const stepsAtOnce = 8;
const bootsAtOnce = 2 * availableParallelism();
/** The slot of a boot is released after this long, in milliseconds: a boot takes 40 to 130 s under emulation. */
const longestBootMs = 180_000;

/** @param bootMs when the slot of a boot is released even if it still runs, in milliseconds. */
export function createConcurrency(bootMs = longestBootMs): Concurrency {
  return { limitStep: limitConcurrency(stepsAtOnce), limitBoot: createTimedLimit(bootsAtOnce, bootMs) };
}

/**
 * Runs at most `atOnce` acts at a time; the others wait.
 * @param longestMs when the slot of an act is released even if it still runs, in milliseconds.
 */
export function createTimedLimit(
  atOnce: number,
  longestMs: number,
): <T>(act: () => Promise<T>) => Promise<T> {
  const limit = limitConcurrency(atOnce);
  return (act) =>
    new Promise((resolve, reject) => {
      void limit(async () => {
        const timeout = new AbortController();
        const ended = act()
          .then(resolve, reject)
          .finally(() => {
            timeout.abort();
          });
        await Promise.race([
          ended,
          delay(longestMs, undefined, { signal: timeout.signal }).catch(() => undefined),
        ]);
      });
    });
}
