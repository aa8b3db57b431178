import type { Binding } from '../model/binding.ts';
import type { Instance } from '../model/instance.ts';
import type { BindingDeps } from './deps.ts';
import { checkPlatformIds } from './plan-lookup.ts';
import type { BindingReference } from './references.ts';

/**
 * The binding that a request names, in any state, and its instance.
 * @throws RefusedError (400) if the ids beside it are wrong.
 */
export async function findBinding(
  { catalog, store, logger }: BindingDeps,
  request: BindingReference,
): Promise<{ instance: Instance | undefined; binding: Binding | undefined }> {
  const instance = await store.records.instance(request.platformId, request.instanceId);
  checkPlatformIds(catalog, instance, request, logger);
  const binding =
    instance === undefined ? undefined : await store.records.binding(instance.id, request.bindingId);
  return { instance, binding };
}
