import { setTimeout as delay } from 'node:timers/promises';

/** Deadlines are written for a quiet machine: a busy one, or one that others slow down, may take this many times as long. */
const patience = 4;

/**
 * Asks until the answer is neither false, null nor undefined, and returns it. What `ask` throws is thrown on
 * at once: a condition that can't be met any more need not be waited for.
 * @param what is awaited, for the error: "the engine answers".
 * @param options.deadlineMs when to give up on a quiet machine, in milliseconds; `options.everyMs` how long to wait in between.
 * @throws Error at the deadline, naming what was awaited and the last answer.
 */
export async function eventually<T>(
  what: string,
  ask: () => T | Promise<T>,
  options: { deadlineMs?: number; everyMs?: number } = {},
): Promise<NonNullable<Exclude<T, false>>> {
  const { deadlineMs = 10_000, everyMs = 25 } = options;
  const deadline = performance.now() + deadlineMs * patience;
  for (;;) {
    const answer = await ask();
    if (answer !== false && answer !== null && answer !== undefined) {
      return answer as NonNullable<Exclude<T, false>>;
    }
    if (performance.now() >= deadline) {
      throw new Error(
        `Waited ${deadlineMs * patience} ms in vain until ${what}; the last answer was ${String(answer)}`,
      );
    }
    await delay(everyMs);
  }
}
