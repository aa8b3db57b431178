import { AsyncLocalStorage } from 'node:async_hooks';
import path from 'node:path';
import { type FileLock, type FileLockOptions, takeFileLock, tryFileLock } from './file-lock.ts';
import { descriptorsForTools } from './run-tool.ts';

/** Locks on hosts, exclusive among all processes on the node. */
export interface HostLocks {
  /**
   * Runs an act while nothing else has the host's lock, in this process or another. Within the act, further calls for
   * the same host run at once: they belong to it.
   */
  readonly withLock: <T>(hostId: string, act: () => Promise<T>) => Promise<T>;
  /** Like `withLock`, but does nothing if another process has the lock. */
  readonly tryWithLock: (hostId: string, act: () => Promise<void>) => Promise<void>;
}

/** A lock that the current async call chain has taken. */
interface TakenLock {
  readonly hostId: string;
  readonly outer: TakenLock | undefined;
  /** True once it is released: what the act left running no longer has it. */
  isReleased: boolean;
}

/** One lock file per host below `directory`. Re-entrant along the async call chain (AsyncLocalStorage). */
export function createHostLocks(directory: string, options: FileLockOptions): HostLocks {
  const inOrder = createQueues();
  const taken = new AsyncLocalStorage<TakenLock>();
  const hasLock = (hostId: string) => {
    for (let lock = taken.getStore(); lock !== undefined; lock = lock.outer) {
      if (lock.hostId === hostId && !lock.isReleased) return true;
    }
    return false;
  };

  async function runLocked<T>(hostId: string, file: FileLock, act: () => Promise<T>): Promise<T> {
    const lock = { hostId, outer: taken.getStore(), isReleased: false };
    // A tool that outlives this process keeps the host locked until its work is done (run-tool.ts).
    const descriptors = [file.descriptor];
    try {
      return await taken.run(lock, () => descriptorsForTools.run(descriptors, act));
    } finally {
      lock.isReleased = true;
      descriptors.length = 0;
      await file.release();
    }
  }
  const fileOf = (hostId: string) => path.join(directory, hostId);

  return {
    async withLock(hostId, act) {
      if (hasLock(hostId)) return act();
      return inOrder(hostId, async () => runLocked(hostId, await takeFileLock(fileOf(hostId), options), act));
    },
    tryWithLock: (hostId, act) =>
      inOrder(hostId, async () => {
        const lock = await tryFileLock(fileOf(hostId), options);
        if (lock !== undefined) await runLocked(hostId, lock, act);
      }),
  };
}

/** Runs acts of the same name one after the other, first come, first served. */
function createQueues(): <T>(name: string, act: () => Promise<T>) => Promise<T> {
  const last = new Map<string, Promise<unknown>>();
  return async (name, act) => {
    const before = last.get(name);
    // If the act before failed, its own caller deals with that.
    const run = (before ?? Promise.resolve()).then(act, act);
    last.set(name, run);
    try {
      return await run;
    } finally {
      if (last.get(name) === run) last.delete(name);
    }
  };
}
