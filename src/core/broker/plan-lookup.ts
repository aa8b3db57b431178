import type { Catalog, Offering, Plan } from '../catalog/catalog.ts';
import { findOffering, findPlan } from '../catalog/lookup.ts';
import { refused } from '../errors.ts';
import type { Logger } from '../../lib/logger.ts';

/**
 * The offering that a request names.
 * @throws RefusedError (400) if it is not in the catalog.
 */
export function requireOffering(catalog: Catalog, serviceId: string): Offering {
  const offering = findOffering(catalog, serviceId);
  if (offering === undefined) {
    throw refused.badRequest(`service_id: ${quoted(serviceId)} is not in this broker's catalog.`);
  }
  return offering;
}

/**
 * The plan that a request names.
 * @throws RefusedError (400) if the offering is not in the catalog, or doesn't have the plan.
 */
export function requirePlan(catalog: Catalog, serviceId: string, planId: string): Plan {
  const offering = requireOffering(catalog, serviceId);
  const plan = findPlan(catalog, serviceId, planId);
  if (plan === undefined) {
    throw refused.badRequest(`plan_id: ${quoted(planId)} is not a plan of the offering ${offering.name}.`);
  }
  return plan;
}

/**
 * Checks the ids that a platform sends with a reference to an instance. The plan id may be stale: another plan of
 * the same offering is accepted and logged (docs/osb.md 15, 38).
 * @throws RefusedError (400) if an id is not in the catalog, or the instance is of another offering.
 */
export function checkPlatformIds(
  catalog: Catalog,
  instance: { id: string; serviceId: string; planId: string } | undefined,
  ids: { serviceId: string | undefined; planId: string | undefined },
  logger: Logger,
): void {
  const { serviceId, planId } = ids;
  if (serviceId !== undefined) requireOffering(catalog, serviceId);
  if (instance !== undefined && serviceId !== undefined && serviceId !== instance.serviceId) {
    throw refused.badRequest(`service_id: the instance is of another offering than ${quoted(serviceId)}.`);
  }
  const offeringId = serviceId ?? instance?.serviceId;
  if (planId === undefined) return;
  const known =
    offeringId === undefined
      ? catalog.offerings.some((offering) => offering.plans.some((plan) => plan.id === planId))
      : findPlan(catalog, offeringId, planId) !== undefined;
  if (!known) throw refused.badRequest(`plan_id: ${quoted(planId)} is not a plan of this offering.`);
  if (instance !== undefined && planId !== instance.planId) {
    logger.info(
      { instance: instance.id, planId: instance.planId, sent: planId },
      'The platform sent a stale plan id',
    );
  }
}

function quoted(id: string): string {
  return JSON.stringify(id.slice(0, 100));
}
