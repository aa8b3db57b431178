import { randomUUID } from 'node:crypto';
import type { OperationKind, UpdateTarget } from '../model/operation.ts';
import { operationTimeMs } from '../operation-deadline.ts';
import type { Records } from '../ports/store.ts';

/** The recorded step of an operation that no worker has leased yet: a worker begins with the workflow's first step. */
const queuedStep = 'queued';

/**
 * Records an operation for the workers; returns its id.
 * @param options.target what an update changes the instance to.
 * @param options.withinMs milliseconds until its deadline; the default leaves time to roll back.
 * @throws RefusedError (ConcurrencyError) if another operation is in progress on the instance.
 */
export async function beginOperation(
  records: Records,
  kind: OperationKind,
  instanceId: string,
  options: { readonly target?: UpdateTarget; readonly withinMs?: number } = {},
): Promise<string> {
  const { target, withinMs = operationTimeMs(kind) } = options;
  const id = randomUUID();
  await records.insertOperation({
    id,
    kind,
    instanceId,
    step: queuedStep,
    description: 'Waiting for a worker',
    deadline: new Date(Date.now() + withinMs),
    target,
  });
  return id;
}
