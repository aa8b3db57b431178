import { refused } from '../errors.ts';
import { beginOperation } from './begin-operation.ts';
import type { InstanceDeps } from './deps.ts';
import { checkPlatformIds } from './plan-lookup.ts';
import type { InstanceReference } from './references.ts';

export type DeprovisionRequest = InstanceReference & { readonly acceptsIncomplete: boolean };

/**
 * Begins the deletion of an instance, and cancels its create, update or restart if one is in progress: its host may be
 * the reason why that does not end.
 * @returns the id of the operation; a retry gets that of the first request.
 * @throws RefusedError (410) if there is no such instance.
 */
export async function deprovision(
  { catalog, store, logger }: InstanceDeps,
  request: DeprovisionRequest,
): Promise<string> {
  const operationId = await store.transaction(async (records) => {
    await records.lockInstanceId(request.platformId, request.instanceId);
    const instance = await records.instance(request.platformId, request.instanceId, 'lock');
    checkPlatformIds(catalog, instance, request, logger);
    if (instance === undefined) {
      await records.recordEarlyDelete(request.platformId, request.instanceId);
      return undefined;
    }
    if (instance.state === 'deleted') return undefined;
    if (!request.acceptsIncomplete) throw refused.asyncRequired();
    const running = await records.unfinishedOperation(instance.id);
    if (running?.kind === 'deprovision') return running.id;
    if (running !== undefined) {
      await records.cancelOperation(running.id, 'Halted: the instance is being deleted');
    }
    await records.setInstanceState(instance.id, 'deleting');
    return beginOperation(records, 'deprovision', instance.id);
  });
  // Thrown outside the transaction, so that the record of an early delete is committed.
  if (operationId === undefined) throw refused.gone();
  return operationId;
}
