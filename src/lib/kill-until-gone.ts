import { setTimeout as delay } from 'node:timers/promises';

/** Between two looks at the processes, in milliseconds. */
const pollMs = 5;

/**
 * Sends SIGKILL to the listed processes until none is left: one may have forked before it was killed.
 * @param list process ids that still exist.
 * @returns those that still exist after `timeoutMs` milliseconds; empty if all have ended.
 */
export async function killUntilGone(
  list: () => Promise<readonly number[]>,
  timeoutMs: number,
): Promise<readonly number[]> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const left = await list();
    if (left.length === 0 || performance.now() > deadline) return left;
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has just ended.
      }
    }
    await delay(pollMs);
  }
}
