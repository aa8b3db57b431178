import type { Plan } from '../catalog/catalog.ts';
import { CatalogError } from '../catalog/load.ts';
import type { Capabilities } from './capabilities.ts';
import type { Driver } from './hypervisor.ts';

/**
 * Refuses a catalog whose plans need what the driver can't do.
 * @throws CatalogError which names every such plan and the remedy.
 */
export function requireCapabilities(
  { name, capabilities }: Pick<Driver, 'name' | 'capabilities'>,
  plans: readonly Plan[],
): void {
  const problems = plans.flatMap((plan) =>
    needsOf(plan)
      .filter(({ isMet }) => !isMet(capabilities))
      .map(({ field, remedy }) => `plan ${plan.name}: ${field} is not supported; ${remedy}`),
  );
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

function needsOf(plan: Plan): Need[] {
  const needs: Need[] = [];
  if (plan.fromTemplate) {
    needs.push({ field: 'template', remedy: 'set template: never', isMet: (can) => can.templates });
  }
  if (plan.pool > 0) {
    needs.push({ field: `pool: ${plan.pool}`, remedy: 'set pool: 0', isMet: (can) => can.park });
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
