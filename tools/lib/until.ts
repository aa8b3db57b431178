import { setTimeout as delay } from 'node:timers/promises';
import { errorMessage } from '../../src/lib/error-message.ts';

/**
 * Calls `ask` until its answer is neither false nor undefined, and returns it. An error counts as "not yet", since processes are
 * killed meanwhile.
 * @param what the condition, for the error: "the pool is full".
 * @throws Error at the deadline, with the condition and the last answer or error.
 */
export async function until<T>(
  what: string,
  patienceMs: number,
  ask: () => T | Promise<T>,
): Promise<Exclude<T, false | undefined>> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    let last: string;
    try {
      const answer = await ask();
      if (answer !== false && answer !== undefined) return answer as Exclude<T, false | undefined>;
      last = String(answer);
    } catch (error) {
      last = errorMessage(error);
    }
    if (performance.now() > deadline) throw new Error(`it never came about that ${what} (${last})`);
    await delay(100);
  }
}
