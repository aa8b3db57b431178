import { platformKinds, type LeasedOperation } from '../core/model/operation.ts';
import { runOperation, type ExecutorDeps } from './executor.ts';
import { createConcurrency } from './concurrency.ts';

/** Runs operations until it is stopped. */
export interface LeaseLoop {
  /** There may be work: look at once. */
  wake(): void;
  /**
   * Whether an operation is in hand that a tenant waits for, and that has not been at it for long: then it is a guest
   * that boots, or hangs, and nothing need be put off for it.
   */
  isBusy(): boolean;
  /** Puts down what is under way, after the step at hand; returns when nothing runs any more. */
  stop(): Promise<void>;
}

/** Operations that a worker has in hand at once: most of them wait for a guest. */
const mostInHand = 256;
/** Out of the pool or the template a create takes less than that, and so does most else. Milliseconds. */
const usuallyMs = 5_000;
/** A worker looks at least this often, should no wake-up reach it. Milliseconds. */
const lookAgainMs = 2_000;

/**
 * Starts a worker: it leases operations that are due, keeps the leases by heartbeat, and runs several at once.
 * @param parts.quickMs how long a tenant's operation keeps the worker busy at the most.
 * @param parts.leaseMs how long an operation stays with a worker that shows no sign of life.
 */
export function startLeaseLoop(
  parts: Omit<ExecutorDeps, 'concurrency'> & {
    readonly name: string;
    readonly leaseMs: number;
    readonly quickMs?: number;
  },
): LeaseLoop {
  const { store, logger, name, leaseMs, quickMs: quick = usuallyMs } = parts;
  const turns = createConcurrency();
  const leave = new AbortController();
  const running = new Map<string, Promise<void>>();
  /** When those were begun that a tenant waits for. */
  const awaited = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;
  let looking = false;
  let lookAgain = false;

  /** @param former what its earlier holder in this process, who lost the lease, may still be doing. */
  function begin(operation: LeasedOperation, former: Promise<void> | undefined): void {
    const heartbeat = setInterval(() => {
      store.records.renewLease(operation, leaseMs).catch((error: unknown) => {
        logger.warn({ operation: operation.id, err: error }, 'A lease could not be renewed');
      });
    }, leaseMs / 3);
    const run = Promise.resolve(former)
      .then(() => runOperation({ ...parts, concurrency: turns }, operation, leave.signal))
      .catch((error: unknown) => {
        // The database is away: the lease runs out, and the operation goes on from its step.
        logger.error({ operation: operation.id, err: error }, 'An operation was put down');
      })
      .finally(() => {
        clearInterval(heartbeat);
        if (running.get(operation.id) === run) {
          running.delete(operation.id);
          awaited.delete(operation.id);
        }
        wake();
      });
    running.set(operation.id, run);
    if (platformKinds.includes(operation.kind)) awaited.set(operation.id, performance.now());
  }

  async function look(): Promise<void> {
    while (!leave.signal.aborted && running.size < mostInHand) {
      const operation = await store.records.leaseOperation(name, leaseMs);
      if (operation === undefined) break;
      begin(operation, running.get(operation.id));
    }
    const dueMs = running.size < mostInHand ? await store.records.nextDueMs() : undefined;
    schedule(Math.min(dueMs ?? lookAgainMs, lookAgainMs));
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
        logger.error({ err: error }, 'Operations could not be looked for');
        schedule(lookAgainMs);
      })
      .finally(() => {
        looking = false;
        if (lookAgain) wake();
      });
  }

  wake();
  return {
    wake,
    isBusy: () => [...awaited.values()].some((begun) => performance.now() - begun < quick),
    async stop() {
      leave.abort();
      clearTimeout(timer);
      await Promise.allSettled(running.values());
    },
  };
}
