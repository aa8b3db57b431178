import type { Catalog, Offering, Plan } from './catalog.ts';

/** The offering with this id. */
export function findOffering(catalog: Catalog, serviceId: string): Offering | undefined {
  return catalog.offerings.find((offering) => offering.id === serviceId);
}

/** The plan with this id, within its offering. */
export function findPlan(catalog: Catalog, serviceId: string, planId: string): Plan | undefined {
  return findOffering(catalog, serviceId)?.plans.find((plan) => plan.id === planId);
}

/** Every plan of every offering, in the catalog's order. */
export function allPlans(catalog: Catalog): readonly Plan[] {
  return catalog.offerings.flatMap((offering) => offering.plans);
}

/** Names of the plans whose hosts are restored from the template; those of others boot cold. */
export const restoredPlans = (plans: readonly Plan[]): ReadonlySet<string> =>
  new Set(plans.filter(({ fromTemplate }) => fromTemplate).map(({ name }) => name));
