import type { Catalog, Plan } from '../catalog/catalog.ts';
import { CatalogError } from '../catalog/load.ts';
import { allPlans } from '../catalog/lookup.ts';
import type { Capabilities } from './capabilities.ts';
import type { Driver } from './hypervisor.ts';

/**
 * Refuses a catalog which needs what the driver can't do.
 * @throws CatalogError which names each such field and the remedy.
 */
export function requireCapabilities(
  { name, capabilities }: Pick<Driver, 'name' | 'capabilities'>,
  catalog: Catalog,
): void {
  const unmet = (what: string, needs: readonly Need[]) =>
    needs
      .filter(({ isMet }) => !isMet(capabilities))
      .map(({ field, remedy }) => `${what}${field} is not supported; ${remedy}`);
  const problems = [
    ...unmet('', poolNeeds(catalog)),
    ...allPlans(catalog).flatMap((plan) => unmet(`plan ${plan.name}: `, needsOf(plan))),
  ];
  if (problems.length === 0) return;
  throw new CatalogError(
    `The catalog does not fit the hypervisor ${name} (BERTH_HYPERVISOR):\n  ${problems.join('\n  ')}`,
  );
}

interface Need {
  /** As the catalog file has it. */
  readonly field: string;
  readonly remedy: string;
  readonly isMet: (capabilities: Capabilities) => boolean;
}

function poolNeeds({ pool: { size, maxSize } }: Catalog): Need[] {
  if (maxSize === 0) return [];
  const remedy = 'set pool: { size: 0, max_size: 0 }, and no pool of a plan';
  return [{ field: `pool: { size: ${size}, max_size: ${maxSize} }`, remedy, isMet: ({ park }) => park }];
}

function needsOf(plan: Plan): Need[] {
  const needs: Need[] = [];
  if (plan.fromTemplate) {
    needs.push({ field: 'template', remedy: 'set template: never', isMet: (can) => can.templates });
  }
  if (plan.idle === 'pause') {
    needs.push({ field: 'idle: pause', remedy: 'set idle: run', isMet: (can) => can.traffic && can.pause });
  }
  if (plan.idle === 'suspend') {
    needs.push({
      field: 'idle: suspend',
      remedy: 'set idle: pause or run',
      // An idle host is paused before it is suspended.
      isMet: (can) => can.traffic && can.pause && can.suspend,
    });
  }
  if (plan.publishedPorts > 0) {
    needs.push({
      field: `published_ports: ${plan.publishedPorts}`,
      remedy: 'set published_ports: 0',
      isMet: (can) => can.publishedPorts,
    });
  }
  needs.push({
    field: `egress: ${plan.egress.kind}`,
    remedy: 'choose another egress',
    isMet: (can) => can.egress.includes(plan.egress.kind),
  });
  return needs;
}
