import { randomUUID } from 'node:crypto';
import { maximumPollingSeconds } from '../catalog/catalog.ts';
import type { Operation, OperationKind, UpdateTarget } from '../model/operation.ts';
import { workflows } from '../../operations/workflows.ts';
import type { Records } from '../ports/store.ts';

/** Waits for operations of other processes. */
export interface OperationWaiter {
  /** The operation once it is finished, or as it stands after `forMs` milliseconds. */
  finished(operationId: string, forMs: number): Promise<Operation | undefined>;
}

/** How a request for work ended: it was done already, it was done just now, or it is under way. */
export type WorkOutcome =
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'done' }
  | { readonly kind: 'accepted'; readonly operationId: string };

/** An operation gives up this long before the platform does, so as to clean up first. In milliseconds. */
const cleanUpMs = 120_000;

/** How long an operation may go forward, in milliseconds; an update's undo, which may boot cold, has its own time after. */
function deadlineMs(kind: OperationKind): number {
  const undo = workflows[kind].rollbackBudgetMs ?? 0;
  return maximumPollingSeconds * 1000 - cleanUpMs - undo;
}

/** Records an operation for the workers; returns its id. */
export async function beginOperation(
  records: Records,
  kind: OperationKind,
  instanceId: string,
  target?: UpdateTarget,
): Promise<string> {
  const first = workflows[kind].steps[0];
  if (first === undefined) throw new Error(`the plan of ${kind} has no step`);
  const id = randomUUID();
  await records.insertOperation({
    id,
    kind,
    instanceId,
    step: first.name,
    description: 'Waiting for a worker',
    deadline: new Date(Date.now() + deadlineMs(kind)),
    target,
  });
  return id;
}

/**
 * Waits a moment for what usually takes a moment, so that the platform need not poll.
 * @param syncWaitMs 0 answers at once that it is under way.
 */
export async function waitBriefly(
  waiter: OperationWaiter,
  syncWaitMs: number,
  operationId: string,
): Promise<WorkOutcome> {
  const operation = syncWaitMs > 0 ? await waiter.finished(operationId, syncWaitMs) : undefined;
  // A failure is told by last_operation, with its reason; a 5xx here would hide it behind orphan mitigation.
  return operation?.state === 'succeeded' ? { kind: 'done' } : { kind: 'accepted', operationId };
}
