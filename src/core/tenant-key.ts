import type { TenantScope } from './catalog/catalog.ts';
import type { JsonObject } from './model/json.ts';

/**
 * What tells the tenants of one platform apart: on Cloud Foundry the org, or where the offering is cut finer the
 * space or the instance; on Kubernetes cluster and namespace. Which platform asks is known from its credential,
 * never from what the context claims. What a context leaves out is taken from the fields beside it, which on
 * Kubernetes stand for cluster and namespace (docs/osb.md 19).
 */
export function tenantKey(
  cut: TenantScope,
  request: {
    readonly instanceId: string;
    readonly organizationGuid: string;
    readonly spaceGuid: string;
    readonly context: JsonObject;
  },
): string {
  const { context, instanceId } = request;
  if (cut === 'instance') return JSON.stringify(['instance', instanceId]);
  const org = textOf(context, 'organization_guid') ?? request.organizationGuid;
  const space = textOf(context, 'space_guid') ?? request.spaceGuid;
  if (context['platform'] === 'kubernetes') {
    const cluster = textOf(context, 'clusterid') ?? org;
    return JSON.stringify(['kubernetes', cluster, textOf(context, 'namespace') ?? space]);
  }
  return JSON.stringify(cut === 'org' ? ['org', org] : ['space', org, space]);
}

/** A field that may be absent or empty: both mean the same (docs/osb.md 21). */
function textOf(context: JsonObject, field: string): string | undefined {
  const value = context[field];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
