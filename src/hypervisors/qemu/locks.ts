/** Runs acts that bear the same name one after the other, in the order in which they were asked for. */
export function createLocks(): <T>(name: string, act: () => Promise<T>) => Promise<T> {
  const last = new Map<string, Promise<unknown>>();
  return async (name, act) => {
    const before = last.get(name);
    // What went before may have failed; that is the business of whoever asked for it.
    const run = (before ?? Promise.resolve()).then(act, act);
    last.set(name, run);
    try {
      return await run;
    } finally {
      if (last.get(name) === run) last.delete(name);
    }
  };
}
