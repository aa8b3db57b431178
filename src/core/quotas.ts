import type { Catalog, Plan } from './catalog/catalog.ts';
import { refused } from './errors.ts';
import type { Limits, Usage } from './model/usage.ts';
import type { Records } from './ports/store.ts';

/** A set of hosts that is counted together. */
interface Scope {
  /** Its key in the store. */
  readonly key: string;
  readonly limits: Limits;
  /** In words, as in "the memory of this tenant". */
  readonly words: string;
  /** Where in the catalog's file the operator finds the limits. */
  readonly setting: string;
}

const resources: readonly { name: keyof Limits; words: string; unit: string; field: string }[] = [
  { name: 'instances', words: 'number of instances', unit: '', field: 'instances' },
  { name: 'vcpus', words: 'vCPUs', unit: '', field: 'vcpus' },
  { name: 'memoryMib', words: 'memory', unit: ' MiB', field: 'memory_mib' },
  { name: 'diskGib', words: 'disk', unit: ' GiB', field: 'disk_gib' },
  { name: 'publishedPorts', words: 'published ports', unit: '', field: 'published_ports' },
];

/** In the order in which the store's counts are locked. */
function scopesOf(catalog: Catalog, plan: Plan, tenantId: string): readonly Scope[] {
  const ofPlan = `of the plan ${plan.name}`;
  return [
    { key: 'total', limits: catalog.quotas.total, words: 'of this broker', setting: 'quotas.total' },
    {
      key: `plan:${plan.name}`,
      limits: plan.quotas.total,
      words: ofPlan,
      setting: `quotas.total of the plan`,
    },
    {
      key: `tenant:${tenantId}`,
      limits: catalog.quotas.tenant,
      words: 'of this tenant',
      setting: 'quotas.tenant',
    },
    {
      key: `tenant:${tenantId}/plan:${plan.name}`,
      limits: plan.quotas.tenant,
      words: `of this tenant ${ofPlan}`,
      setting: `quotas.tenant of the plan`,
    },
  ].filter(({ limits }) => Object.keys(limits).length > 0);
}

/**
 * Holds what is in use against the limits, after the host or its reservation has been recorded in this same
 * transaction: its counts are held until the commit, so that it is right under concurrency.
 * @param added what the host or reservation has added.
 * @param ofPlan what it has added to its plan, where that is more: a host that comes from another plan.
 * @throws RefusedError (422) which says which limit, how much was used, and who can raise it.
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
  for (const { key, limits, words, setting } of scopes) {
    const more = key.includes('plan:') ? ofPlan : added;
    for (const { name, words: resource, unit, field } of resources) {
      const limit = limits[name];
      const now = used.get(key)?.[name] ?? 0;
      if (limit === undefined || now <= limit || more[name] === 0) continue;
      throw refused.unprocessable(
        `The ${resource} ${words} would pass its limit of ${limit}${unit}: ${now - more[name]}${unit} are in use, and this needs ${more[name]}${unit} more. ` +
          `Delete instances, or ask the operator of the broker to raise it (${setting}.${field} in its catalog).`,
      );
    }
  }
}

/** What a host of this plan takes. */
export function usageOf(plan: Plan, publishedPorts: number): Usage {
  return { instances: 1, ...plan.shape, publishedPorts };
}
