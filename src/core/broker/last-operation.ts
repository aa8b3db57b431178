import { refused } from '../errors.ts';
import { type Operation, platformKinds, type ReportedOperation } from '../model/operation.ts';
import type { Store } from '../ports/store.ts';
import type { InstanceDeps } from './deps.ts';
import { checkPlatformIds } from './plan-lookup.ts';
import type { InstanceReference } from './references.ts';

export type LastOperationRequest = InstanceReference & { readonly operationId: string | undefined };

export interface OperationReport {
  readonly state: Operation['state'];
  readonly description: string;
  /** Only of a failed update or delete (docs/osb.md 17). */
  readonly instanceUsable: boolean | undefined;
  /** Only of a failed update. */
  readonly updateRepeatable: boolean | undefined;
}

/** @throws RefusedError 404 if there is no such instance, 410 if its operation's record has been deleted. */
export async function lastOperation(
  { catalog, store, notice, logger }: InstanceDeps,
  request: LastOperationRequest,
): Promise<OperationReport> {
  const found = await store.records.reportedOperation(
    { platformId: request.platformId, osbId: request.instanceId, operationId: request.operationId },
    platformKinds,
  );
  checkPlatformIds(catalog, found?.instance, request, logger);
  if (found === undefined) throw refused.instanceNotFound();
  const { operation } = found;
  if (operation === undefined) throw refused.gone();
  const hasFailed = operation.state === 'failed';
  return {
    state: operation.state,
    description: `${notice}${operation.description}${restartText(operation)}`,
    instanceUsable: hasFailed ? await isUsable(store, operation) : undefined,
    // A failed update loses nothing, so repeating it is safe.
    updateRepeatable: hasFailed && operation.kind === 'update' ? true : undefined,
  };
}

/** Why the instance can't be reached at present, although its last operation has succeeded. */
function restartText({ state, restartAt }: ReportedOperation): string {
  if (state === 'in progress' || restartAt === undefined) return '';
  return `. The host has ended several times; the next restart begins at ${restartAt.toISOString()}`;
}

/** Whether an instance is usable after its failed operation; undefined for a create (docs/osb.md 17). */
async function isUsable(store: Store, operation: ReportedOperation): Promise<boolean | undefined> {
  if (operation.kind === 'provision') return undefined;
  // A delete revokes the credentials first, and the host may be half destroyed.
  if (operation.kind === 'deprovision') return false;
  const host = await store.records.hostOfInstance(operation.instanceId);
  return host?.state === 'running' && host.engine !== undefined;
}
