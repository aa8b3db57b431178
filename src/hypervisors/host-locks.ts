import { AsyncLocalStorage } from 'node:async_hooks';
import path from 'node:path';
import { type FileLock, type FileLockOptions, takeFileLock, takeFileLockIfFree } from './file-lock.ts';
import { descriptorsForTools } from './run-tool.ts';

/** Acts on hosts in order, among all processes on this machine. */
export interface HostLocks {
  /** Runs an act on a host while no other act on it runs, in this process or another. */
  readonly withLock: <T>(hostId: string, act: () => Promise<T>) => Promise<T>;
  /** The same, but not at all where another process is at it. */
  readonly tryWithLock: (hostId: string, act: () => Promise<void>) => Promise<void>;
}

/** A lock that the present course of calls has taken; `over` once it was let go. */
interface Held {
  readonly hostId: string;
  readonly outer: Held | undefined;
  over: boolean;
}

/**
 * Locks by the names of hosts, one file each below `directory`. Within an act that holds a host, further acts
 * on it belong to the first and go straight on.
 */
export function createHostLocks(directory: string, options: FileLockOptions): HostLocks {
  const inOrder = createQueues();
  const held = new AsyncLocalStorage<Held>();
  const isHeld = (hostId: string) => {
    for (let one = held.getStore(); one !== undefined; one = one.outer) {
      if (one.hostId === hostId && !one.over) return true;
    }
    return false;
  };

  async function holding<T>(hostId: string, lock: FileLock, act: () => Promise<T>): Promise<T> {
    const mine = { hostId, outer: held.getStore(), over: false };
    // A tool that outlives us in the middle of its work goes on holding the host until it has ended.
    const descriptors = [lock.descriptor];
    try {
      return await held.run(mine, () => descriptorsForTools.run(descriptors, act));
    } finally {
      mine.over = true;
      descriptors.length = 0;
      await lock.release();
    }
  }
  const fileOf = (hostId: string) => path.join(directory, hostId);

  return {
    async withLock(hostId, act) {
      if (isHeld(hostId)) return act();
      return inOrder(hostId, async () => holding(hostId, await takeFileLock(fileOf(hostId), options), act));
    },
    tryWithLock: (hostId, act) =>
      inOrder(hostId, async () => {
        const lock = await takeFileLockIfFree(fileOf(hostId), options);
        if (lock !== undefined) await holding(hostId, lock, act);
      }),
  };
}

/** Runs acts that bear the same name one after the other, in the order in which they were asked for. */
function createQueues(): <T>(name: string, act: () => Promise<T>) => Promise<T> {
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
