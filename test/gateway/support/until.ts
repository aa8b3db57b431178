/** Waits until the condition holds. @throws Error that names it, where it does not within the deadline. */
export async function until(what: string, condition: () => boolean, deadlineMs = 40_000): Promise<void> {
  const end = performance.now() + deadlineMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`still not so after ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Lets everything that is under way in this process go on: timers, microtasks and what sockets have brought. */
export async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
