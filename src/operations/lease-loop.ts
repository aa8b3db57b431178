import { platformKinds, type LeasedOperation } from '../core/model/operation.ts';
import { runOperation, type ExecutorDeps } from './executor.ts';
import { createConcurrency } from './concurrency.ts';

/** Leases and runs operations until it is stopped. */
export interface LeaseLoop {
  /** Looks for operations immediately. */
  wake(): void;
  /**
   * Whether an operation that a platform waits for is running, and began recently. One that takes longer waits for a
   * guest that boots or hangs, and other work need not be delayed for it.
   */
  isBusy(): boolean;
  /** Releases all running operations after their current step; resolves once nothing runs any more. */
  stop(): Promise<void>;
}

/** Operations that a worker runs at once: most of them wait for a guest. */
const maxRunning = 256;
/** A create from the pool or the template takes less than this, and so do most other operations. Milliseconds. */
const usualOperationMs = 5_000;
/** How often a worker looks for operations if no wake-up reaches it, in milliseconds. */
const pollMs = 2_000;

/**
 * Leases operations that are due, renews the leases while it runs them, and runs several at once.
 * @param deps.name of the worker: the lease holder.
 * @param deps.leaseMs when an operation of a silent worker may be leased by another, in milliseconds.
 * @param deps.quickMs how long after its begin an operation counts as busy, in milliseconds ({@link LeaseLoop.isBusy}).
 */
export function startLeaseLoop(
  deps: Omit<ExecutorDeps, 'concurrency'> & {
    readonly name: string;
    readonly leaseMs: number;
    readonly quickMs?: number;
  },
): LeaseLoop {
  const { store, logger, name, leaseMs, quickMs = usualOperationMs } = deps;
  const concurrency = createConcurrency();
  const leave = new AbortController();
  const running = new Map<string, Promise<void>>();
  /** When each running operation of a platform began. */
  const beganAt = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;
  let looking = false;
  let lookAgain = false;

  /** @param former the run of this process that lost the lease on the same operation, and may not have ended yet. */
  function begin(operation: LeasedOperation, former: Promise<void> | undefined): void {
    const heartbeat = setInterval(() => {
      store.records.renewLease(operation, leaseMs).catch((error: unknown) => {
        logger.warn({ operation: operation.id, err: error }, 'Failed to renew the lease on an operation');
      });
    }, leaseMs / 3);
    const run = Promise.resolve(former)
      .then(() => runOperation({ ...deps, concurrency }, operation, leave.signal))
      .catch((error: unknown) => {
        // Postgres is unreachable: the lease expires, and a worker resumes the operation.
        logger.error(
          { operation: operation.id, err: error },
          'Operation released after an error; a worker will resume it',
        );
      })
      .finally(() => {
        clearInterval(heartbeat);
        if (running.get(operation.id) === run) {
          running.delete(operation.id);
          beganAt.delete(operation.id);
        }
        wake();
      });
    running.set(operation.id, run);
    if (platformKinds.includes(operation.kind)) beganAt.set(operation.id, performance.now());
  }

  async function look(): Promise<void> {
    while (!leave.signal.aborted && running.size < maxRunning) {
      const operation = await store.records.leaseOperation(name, leaseMs);
      if (operation === undefined) break;
      begin(operation, running.get(operation.id));
    }
    const dueMs = running.size < maxRunning ? await store.records.nextDueMs() : undefined;
    schedule(Math.min(dueMs ?? pollMs, pollMs));
  }

  function schedule(afterMs: number): void {
    clearTimeout(timer);
    if (!leave.signal.aborted) timer = setTimeout(wake, Math.max(10, afterMs));
  }

  function wake(): void {
    if (looking) {
      lookAgain = true;
      return;
    }
    looking = true;
    lookAgain = false;
    look()
      .catch((error: unknown) => {
        logger.error({ err: error }, `Failed to look for operations; retrying in ${pollMs / 1000} s`);
        schedule(pollMs);
      })
      .finally(() => {
        looking = false;
        if (lookAgain) wake();
      });
  }

  wake();
  return {
    wake,
    isBusy: () => [...beganAt.values()].some((began) => performance.now() - began < quickMs),
    async stop() {
      leave.abort();
      clearTimeout(timer);
      await Promise.allSettled(running.values());
    },
  };
}
