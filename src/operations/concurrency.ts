import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import limitConcurrency from 'p-limit';

/**
 * What keeps this machine at work goes by turns: more at once would only make each of them slower. What waits, for a
 * guest or a gateway, takes no turn, so that a tenant's host that hangs keeps nobody else's waiting.
 */
export interface Concurrency {
  /** Runs a step that ends by itself. */
  work<T>(act: () => Promise<T>): Promise<T>;
  /** Runs a course of steps in which a guest boots. The turn passes on with its end, or before where it hangs. */
  boot<T>(course: () => Promise<T>): Promise<T>;
}

const stepsAtOnce = 8;
const bootsAtOnce = 2 * availableParallelism();
/** No boot takes longer that is to be waited for, in milliseconds: one takes 40 to 130 s under emulation. */
const longestBootMs = 180_000;

/** @param bootMs after so many milliseconds a turn passes on whatever its course is doing. */
export function createConcurrency(bootMs = longestBootMs): Concurrency {
  return { work: limitConcurrency(stepsAtOnce), boot: createTimedLimit(bootsAtOnce, bootMs) };
}

/**
 * So many courses at once; the others wait.
 * @param longestMs after so many milliseconds a turn passes on whatever its course is doing.
 */
export function createTimedLimit(
  atOnce: number,
  longestMs: number,
): <T>(course: () => Promise<T>) => Promise<T> {
  const turns = limitConcurrency(atOnce);
  return (course) =>
    new Promise((resolve, reject) => {
      void turns(async () => {
        const over = new AbortController();
        const ended = course()
          .then(resolve, reject)
          .finally(() => {
            over.abort();
          });
        await Promise.race([
          ended,
          delay(longestMs, undefined, { signal: over.signal }).catch(() => undefined),
        ]);
      });
    });
}
