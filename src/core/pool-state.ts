import type { Catalog, Plan, PoolSize } from './catalog/catalog.ts';
import { allPlans } from './catalog/lookup.ts';
import { poolTargets } from './catalog/pool-targets.ts';
import type { Overview } from './ports/overview.ts';
import type { Records } from './ports/store.ts';

/** The pool is prepared for as many creates as there were in this time, in seconds. */
const demandSeconds = 600;

/**
 * How many hosts of each plan's size are to be parked now, by the plan's name. A single tenant counts for at most half of the
 * largest pool.
 * @param plans those that hosts can be restored for now.
 */
export async function wantedHosts(
  plans: readonly Plan[],
  size: PoolSize,
  records: Pick<Records, 'createdInstances'>,
): Promise<ReadonlyMap<string, number>> {
  const mostOfTenant = Math.ceil(size.maxSize / 2);
  return poolTargets(plans, size, await records.createdInstances(demandSeconds, mostOfTenant));
}

/** The hosts of one plan's size in the pool. */
export interface PoolPlan {
  readonly plan: string;
  readonly wanted: number;
  readonly parked: number;
}

/** The pool, by plan in the catalog's order, without plans of which it neither has nor wants any. */
export async function poolState(
  catalog: Catalog,
  records: Pick<Records, 'createdInstances' | 'poolHosts'>,
  overview: Pick<Overview, 'restoredPlans'>,
): Promise<readonly PoolPlan[]> {
  const plans = allPlans(catalog);
  const [hosts, restored] = await Promise.all([records.poolHosts(), overview.restoredPlans()]);
  const targets = await wantedHosts(
    plans.filter(({ name }) => restored.has(name)),
    catalog.pool,
    records,
  );
  const parked = hosts.filter(({ state }) => state === 'parked').map(({ planName }) => planName);
  return plans
    .map(({ name }) => ({
      plan: name,
      wanted: targets.get(name) ?? 0,
      parked: parked.filter((one) => one === name).length,
    }))
    .filter((one) => one.wanted > 0 || one.parked > 0);
}
