import type { PlansInUse } from '../ports/plans-in-use.ts';
import type { Catalog } from './catalog.ts';
import { findPlan } from './lookup.ts';
import { CatalogError } from './load.ts';

/**
 * Stops a start if the catalog no longer has the id of an offering or a plan that instances use: these could not be
 * updated, bound or deleted (docs/osb.md 12).
 * @throws CatalogError which names each of them and how many instances use it.
 */
export async function refuseDroppedPlans(plansInUse: PlansInUse, catalog: Catalog): Promise<void> {
  const dropped = (await plansInUse.list()).filter(
    ({ serviceId, planId }) => findPlan(catalog, serviceId, planId) === undefined,
  );
  if (dropped.length === 0) return;
  const texts = dropped.map(({ serviceId, planId, planName, instances }) => {
    const called = planName === undefined ? '' : ` (${planName})`;
    return `the plan ${planId}${called} of the offering ${serviceId}, which ${instances === 1 ? '1 instance uses' : `${instances} instances use`}`;
  });
  throw new CatalogError(
    `The catalog has dropped ids that are in use: ${texts.join('; ')}. Put them back, under these ids, until those instances are deleted or updated to another plan.`,
  );
}
