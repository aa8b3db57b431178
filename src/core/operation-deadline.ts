import type { OperationKind } from './model/operation.ts';

/** How long a platform polls an operation at most, in seconds. Operations end themselves before that. */
export const maximumPollingSeconds = 1800;

/** An operation's deadline is this long before the platform's, so that there is time to roll back. In milliseconds. */
const rollbackReserveMs = 120_000;

/** How long the rollback of an update may take after the operation's deadline, in milliseconds: several cold boots. */
export const updateRollbackBudgetMs = 14 * 60_000;

/**
 * How long an operation may go forward, in milliseconds. The rollback of an update can boot cold, so its time is
 * subtracted: the whole operation stays within {@link maximumPollingSeconds}.
 */
export function operationTimeMs(kind: OperationKind): number {
  return maximumPollingSeconds * 1000 - rollbackReserveMs - (kind === 'update' ? updateRollbackBudgetMs : 0);
}
