/** A limit on how many acts run at once, shared fairly among those that they belong to. */
export interface FairLimit {
  /**
   * Calls `begin` when the act may run, perhaps immediately.
   * @param owner what the act belongs to, such as a tenant.
   * @returns a function that ends the act's turn, or leaves the queue; only its first call counts.
   */
  enter(owner: string, begin: () => void): () => void;
}

/**
 * Owners take turns (round robin), and none has more than `perOwner` at once, so that however many acts one owner
 * queues, the others wait for a few turns only.
 */
export function createFairLimit(limits: { readonly atOnce: number; readonly perOwner: number }): FairLimit {
  /** The waiting owners in the order of their next turns, each with its acts, first come, first served. */
  const queues = new Map<string, Set<() => void>>();
  const running = new Map<string, number>();
  let runningCount = 0;

  const nextOwner = () => {
    if (runningCount >= limits.atOnce) return undefined;
    return [...queues.keys()].find((owner) => (running.get(owner) ?? 0) < limits.perOwner);
  };
  const remove = (owner: string, act: () => void) => {
    const queue = queues.get(owner);
    const wasQueued = queue?.delete(act) ?? false;
    if (queue?.size === 0) queues.delete(owner);
    return wasQueued;
  };

  function runNext(): void {
    for (let owner = nextOwner(); owner !== undefined; owner = nextOwner()) {
      const queue = queues.get(owner) ?? new Set();
      const [act] = queue;
      if (act === undefined) return;
      queue.delete(act);
      // Behind the others.
      queues.delete(owner);
      if (queue.size > 0) queues.set(owner, queue);
      runningCount += 1;
      running.set(owner, (running.get(owner) ?? 0) + 1);
      act();
    }
  }

  return {
    enter(owner, begin) {
      let hasLeft = false;
      const act = () => {
        begin();
      };
      const queue = queues.get(owner) ?? new Set();
      queues.set(owner, queue.add(act));
      runNext();
      return () => {
        if (hasLeft) return;
        hasLeft = true;
        if (remove(owner, act)) return;
        runningCount -= 1;
        const left = (running.get(owner) ?? 0) - 1;
        if (left > 0) running.set(owner, left);
        else running.delete(owner);
        runNext();
      };
    },
  };
}
