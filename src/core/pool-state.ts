import type { Catalog } from './catalog/catalog.ts';
import { allPlans } from './catalog/lookup.ts';
import { demandSeconds, poolTargets } from './catalog/pool-targets.ts';
import type { Overview } from './ports/overview.ts';
import type { Records } from './ports/store.ts';

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
  const [created, hosts, restored] = await Promise.all([
    records.createdInstances(demandSeconds),
    records.poolHosts(),
    overview.restoredPlans(),
  ]);
  const targets = poolTargets(
    plans.filter(({ name }) => restored.has(name)),
    catalog.pool,
    created,
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
