import { setTimeout as delay } from 'node:timers/promises';

/** Factor for deadlines, which are written for an idle node: a busy one is slower. */
const patience = 4;

/**
 * Calls `ask` until its answer is neither false, null nor undefined, and returns it. An error of `ask` is thrown at once,
 * so that a condition that has become impossible is not waited for.
 * @param what the condition, for the error: "the engine answers".
 * @param options.deadlineMs time limit on an idle node, in milliseconds; `options.everyMs` pause between two calls.
 * @throws Error at the deadline, with the condition and the last answer.
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
