import type { Host } from '../model/host.ts';
import type { Instance } from '../model/instance.ts';
import type { Store } from '../ports/store.ts';

/** What a platform sees of an instance. */
export interface InstanceView {
  readonly instance: Instance;
  /** Undefined once the instance has expired. */
  readonly host: Host | undefined;
}

/** The view of an instance that has just been recorded or found. */
export async function viewInstance(
  store: Store,
  { platformId, instanceId }: { readonly platformId: string; readonly instanceId: string },
): Promise<InstanceView> {
  const instance = await store.records.instance(platformId, instanceId);
  if (instance === undefined) throw new Error(`the recorded instance ${instanceId} can't be read`);
  return { instance, host: await store.records.hostOfInstance(instance.id) };
}
