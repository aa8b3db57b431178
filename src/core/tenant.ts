import type { TenantCut } from './catalog/catalog.ts';
import { refused } from './errors.ts';
import type { JsonObject } from './model.ts';

/**
 * What tells the tenants of one platform apart: on Cloud Foundry the org, or where the offering is cut finer the
 * space or the instance; on Kubernetes cluster and namespace. Which platform asks is known from its credential,
 * never from what the context claims (osb-notes 19).
 * @throws RefusedError (400) where a Kubernetes context names no cluster or namespace.
 */
export function tenantKey(
  cut: TenantCut,
  request: {
    readonly instanceId: string;
    readonly organizationGuid: string;
    readonly spaceGuid: string;
    readonly context: JsonObject;
  },
): string {
  const { context, instanceId } = request;
  if (cut === 'instance') return JSON.stringify(['instance', instanceId]);
  if (context['platform'] === 'kubernetes') {
    const cluster = textOf(context, 'clusterid');
    const namespace = textOf(context, 'namespace');
    if (cluster === undefined || namespace === undefined) {
      throw refused.badRequest('context: clusterid and namespace are required for the platform kubernetes.');
    }
    return JSON.stringify(['kubernetes', cluster, namespace]);
  }
  const org = textOf(context, 'organization_guid') ?? request.organizationGuid;
  if (cut === 'org') return JSON.stringify(['org', org]);
  return JSON.stringify(['space', org, textOf(context, 'space_guid') ?? request.spaceGuid]);
}

/** A field that may be absent or empty: both mean the same (osb-notes 21). */
function textOf(context: JsonObject, field: string): string | undefined {
  const value = context[field];
  return typeof value === 'string' && value !== '' ? value : undefined;
}
