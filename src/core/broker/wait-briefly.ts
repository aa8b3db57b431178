import type { OperationWaiter } from '../ports/operation-waiter.ts';

/** How a request ended: nothing to do, done within the wait, or still in progress. */
export type WorkOutcome =
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'done' }
  | { readonly kind: 'accepted'; readonly operationId: string };

/**
 * Waits for an operation that usually takes a moment, so that the platform need not poll.
 * @param syncWaitMs how long to wait, in milliseconds; 0 returns `accepted` immediately.
 */
export async function waitBriefly(
  waiter: OperationWaiter,
  syncWaitMs: number,
  operationId: string,
): Promise<WorkOutcome> {
  const operation = syncWaitMs > 0 ? await waiter.finished(operationId, syncWaitMs) : undefined;
  // last_operation reports a failure with its reason; a 5xx here would make the platform start orphan mitigation.
  return operation?.state === 'succeeded' ? { kind: 'done' } : { kind: 'accepted', operationId };
}
