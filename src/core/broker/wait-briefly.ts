import type { InstanceDeps } from './deps.ts';

/** How a request ended: nothing to do, done within the wait, or still in progress. */
export type WorkOutcome =
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'done' }
  | { readonly kind: 'accepted'; readonly operationId: string };

/** Waits for an operation that usually takes a moment, so that the platform need not poll. */
export async function waitBriefly(
  { waiter, syncWaitMs }: Pick<InstanceDeps, 'waiter' | 'syncWaitMs'>,
  operationId: string | undefined,
): Promise<WorkOutcome> {
  if (operationId === undefined) return { kind: 'unchanged' };
  const operation = syncWaitMs > 0 ? await waiter.finished(operationId, syncWaitMs) : undefined;
  // last_operation reports a failure with its reason; a 5xx here would make the platform start orphan mitigation.
  return operation?.state === 'succeeded' ? { kind: 'done' } : { kind: 'accepted', operationId };
}
