import { totalmem } from 'node:os';
import type { Plan } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { CurrentImageRecord } from '../core/ports/current-image.ts';
import type { WorkerRecords } from '../core/ports/worker-records.ts';
import { availableMib } from './node-memory.ts';

/** Reports that this worker is alive, what it makes hosts from, and the memory of its node. */
export async function sendHeartbeat(deps: {
  /** Of the worker. */
  readonly name: string;
  readonly hypervisor: Pick<Hypervisor, 'name' | 'imageVersion' | 'hasTemplate'>;
  readonly plans: readonly Plan[];
  readonly workers: Pick<WorkerRecords, 'report'>;
  readonly image: Pick<CurrentImageRecord, 'write'>;
}): Promise<void> {
  const { name, hypervisor, plans, workers, image } = deps;
  const templates: string[] = [];
  for (const plan of plans) if (await hypervisor.hasTemplate(plan.name)) templates.push(plan.name);
  await workers.report({
    name,
    hypervisor: hypervisor.name,
    templates,
    memoryAvailableMib: await availableMib(),
    // Simulated hosts take no memory of the node.
    memoryTotalMib: hypervisor.name === 'simulated' ? undefined : Math.floor(totalmem() / 1024 ** 2),
  });
  await image.write(hypervisor.imageVersion);
}
