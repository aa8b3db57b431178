import type { TenantScope } from './catalog/catalog.ts';
import type { JsonObject } from './model/json.ts';

/**
 * Identifies a tenant within its platform: on Cloud Foundry by the org, the space or the instance, as the offering
 * says; on Kubernetes by cluster and namespace. The platform is known from its credential, never from the context.
 * If the context lacks an id, the top-level field is used, which on Kubernetes names cluster and namespace
 * (docs/osb.md 19).
 */
export function tenantKey(
  scope: TenantScope,
  request: {
    readonly instanceId: string;
    readonly organizationGuid: string;
    readonly spaceGuid: string;
    readonly context: JsonObject;
  },
): string {
  const { context, instanceId } = request;
  if (scope === 'instance') return JSON.stringify(['instance', instanceId]);
  const org = textOf(context, 'organization_guid') ?? request.organizationGuid;
  const space = textOf(context, 'space_guid') ?? request.spaceGuid;
  if (context['platform'] === 'kubernetes') {
    const cluster = textOf(context, 'clusterid') ?? org;
    return JSON.stringify(['kubernetes', cluster, textOf(context, 'namespace') ?? space]);
  }
  return JSON.stringify(scope === 'org' ? ['org', org] : ['space', org, space]);
}

/** The text of a field; absent and empty mean the same (docs/osb.md 21). */
function textOf(context: JsonObject, field: string): string | undefined {
  const value = context[field];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
