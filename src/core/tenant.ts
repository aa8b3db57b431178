import { refused } from './errors.ts';
import type { JsonObject } from './model.ts';

/**
 * What tells the tenants of one platform apart: the org on Cloud Foundry, cluster and namespace on
 * Kubernetes. Which platform asks is known from its credential, never from what the context claims
 * (osb-notes 19).
 * @throws RefusedError (400) where a Kubernetes context names no cluster or namespace.
 */
export function tenantKey(context: JsonObject, organizationGuid: string): string {
  if (context['platform'] === 'kubernetes') {
    const cluster = context['clusterid'];
    const namespace = context['namespace'];
    if (typeof cluster !== 'string' || cluster === '' || typeof namespace !== 'string' || namespace === '') {
      throw refused.badRequest('context: clusterid and namespace are required for the platform kubernetes.');
    }
    return JSON.stringify(['kubernetes', cluster, namespace]);
  }
  const org = context['organization_guid'];
  return JSON.stringify(['org', typeof org === 'string' && org !== '' ? org : organizationGuid]);
}
