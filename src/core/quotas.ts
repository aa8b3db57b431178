import type { Catalog, Plan } from './catalog/catalog.ts';
import { refused } from './errors.ts';
import type { Limits, Usage } from './model/usage.ts';
import type { Records } from './ports/store.ts';

/** A set of hosts that is counted together. */
interface Scope {
  /** Its key in the store. */
  readonly key: string;
  readonly limits: Limits;
  /** Completes a sentence, as in "the memory of this tenant". */
  readonly owner: string;
  /** The path of the limits in the catalog's file. */
  readonly setting: string;
}

const resources: readonly { name: keyof Limits; label: string; unit: string; field: string }[] = [
  { name: 'instances', label: 'number of instances', unit: '', field: 'instances' },
  { name: 'vcpus', label: 'vCPUs', unit: '', field: 'vcpus' },
  { name: 'memoryMib', label: 'memory', unit: ' MiB', field: 'memory_mib' },
  { name: 'diskGib', label: 'disk', unit: ' GiB', field: 'disk_gib' },
  { name: 'publishedPorts', label: 'published ports', unit: '', field: 'published_ports' },
];

/** In the order in which the database locks the counts. */
function scopesOf(catalog: Catalog, plan: Plan, tenantId: string): readonly Scope[] {
  const ofPlan = `of the plan ${plan.name}`;
  return [
    { key: 'total', limits: catalog.quotas.total, owner: 'of this broker', setting: 'quotas.total' },
    {
      key: `plan:${plan.name}`,
      limits: plan.quotas.total,
      owner: ofPlan,
      setting: `quotas.total of the plan`,
    },
    {
      key: `tenant:${tenantId}`,
      limits: catalog.quotas.tenant,
      owner: 'of this tenant',
      setting: 'quotas.tenant',
    },
    {
      key: `tenant:${tenantId}/plan:${plan.name}`,
      limits: plan.quotas.tenant,
      owner: `of this tenant ${ofPlan}`,
      setting: `quotas.tenant of the plan`,
    },
  ].filter(({ limits }) => Object.keys(limits).length > 0);
}

/**
 * Compares the usage with the limits, after the host or its reserve has been recorded in the same transaction:
 * recording it locks the counts until the commit, so concurrent requests can't exceed a limit together.
 * @param added what the host or reserve has added.
 * @param ofPlan what it has added to its plan; differs from `added` for a host that comes from another plan.
 * @throws RefusedError (422) that names the limit, the usage, and who can raise the limit.
 */
export async function requireQuota(
  records: Records,
  catalog: Catalog,
  plan: Plan,
  tenantId: string,
  added: Usage,
  ofPlan: Usage = added,
): Promise<void> {
  const scopes = scopesOf(catalog, plan, tenantId);
  if (scopes.length === 0) return;
  const used = await records.usage(scopes.map(({ key }) => key));
  for (const { key, limits, owner, setting } of scopes) {
    const more = key.includes('plan:') ? ofPlan : added;
    for (const { name, label, unit, field } of resources) {
      const limit = limits[name];
      const now = used.get(key)?.[name] ?? 0;
      if (limit === undefined || now <= limit || more[name] === 0) continue;
      throw refused.unprocessable(
        `The ${label} ${owner} would exceed its limit of ${limit}${unit}: ${now - more[name]}${unit} are in use, and this needs ${more[name]}${unit} more. ` +
          `Delete instances, or ask the operator of the broker to raise it (${setting}.${field} in its catalog).`,
      );
    }
  }
}

/** What a host of this plan counts as. */
export function usageOf(plan: Plan, publishedPorts: number): Usage {
  return { instances: 1, ...plan.shape, publishedPorts };
}
