import type { TenantScope } from '../catalog/catalog.ts';
import { refused } from '../errors.ts';
import type { Instance } from '../model/instance.ts';
import type { JsonObject } from '../model/json.ts';
import type { Records } from '../ports/store.ts';
import { tenantKey } from '../tenant-key.ts';
import { withoutEmpty } from './platform-context.ts';

/** Where an app is bound from; Cloud Foundry lets an owner share an instance with other spaces and orgs. */
export interface Binder {
  readonly context: JsonObject;
  /** `bind_resource.space_guid`: the app's space. */
  readonly spaceGuid: string | undefined;
}

/**
 * A host serves one tenant, so only its tenant's apps are bound. Cloud Controller sends an app's space but not its org
 * (the context is that of the instance), so the org of another space is looked up among the contexts it has sent.
 * @throws RefusedError (422) if the app belongs to another tenant, or if that can't be ruled out.
 */
export async function requireSameOwner(
  records: Records,
  scope: TenantScope,
  instance: Instance,
  { context, spaceGuid }: Binder,
): Promise<void> {
  const key = (of: JsonObject) =>
    tenantKey(scope, { instanceId: instance.osbId, organizationGuid: '', spaceGuid: '', context: of });
  if (key({ ...instance.context, ...withoutEmpty(context) }) !== key(instance.context)) {
    throw refused.unprocessable(
      'context: it names another owner than that of the instance, and a host serves one tenant only. Create an instance for that owner.',
    );
  }
  if (spaceGuid === undefined || spaceGuid === instance.context['space_guid']) return;
  if (scope !== 'org') {
    throw refused.unprocessable(
      `bind_resource.space_guid: the app is in another space than the instance, and a host of this offering serves one ${scope} only. Create an instance in the app's space.`,
    );
  }
  const org = await records.orgOfSpace(instance.platformId, spaceGuid);
  if (org === instance.context['organization_guid']) return;
  throw refused.unprocessable(
    org === undefined
      ? "bind_resource.space_guid: Berth can't tell whether the app's space belongs to the org of the instance, since no instance was ever created in it, and a host serves one org only. Create an instance in the app's space, or bind from the space of this one."
      : "bind_resource.space_guid: the app's space belongs to another org than the instance, and a host serves one org only. Create an instance in the app's org.",
  );
}
