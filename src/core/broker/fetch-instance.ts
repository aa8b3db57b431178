import { refused } from '../errors.ts';
import type { InstanceDeps } from './deps.ts';
import type { InstanceView } from './instance-view.ts';
import { checkPlatformIds } from './plan-lookup.ts';
import type { InstanceReference } from './references.ts';

/** @throws RefusedError (404) unless the instance is ready or expired, 422 during an update. */
export async function fetchInstance(
  { catalog, store, logger }: InstanceDeps,
  request: InstanceReference,
): Promise<InstanceView> {
  const instance = await store.records.instance(request.platformId, request.instanceId);
  checkPlatformIds(catalog, instance, request, logger);
  if (instance === undefined) throw refused.instanceNotFound();
  if (instance.state === 'ready' || instance.state === 'expired') {
    const running = await store.records.unfinishedOperation(instance.id);
    if (running?.kind === 'update') throw refused.concurrency();
    return { instance, host: await store.records.hostOfInstance(instance.id) };
  }
  throw refused.notFound(
    {
      creating: 'The instance is still being created.',
      failed: 'The instance could not be created, or not be deleted. Delete it.',
      deleting: 'The instance is being deleted.',
      deleted: 'The instance has been deleted.',
    }[instance.state],
  );
}
