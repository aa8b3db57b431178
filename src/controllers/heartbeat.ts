import { totalmem } from 'node:os';
import { availableMib } from './node-memory.ts';
import type { Plan } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';

/** What a worker reports of itself: it is alive, what it makes hosts from, and the memory of its node. */
export interface WorkerStatus {
  readonly hypervisor: string;
  /** Plans that have a template. */
  readonly templates: readonly string[];
  readonly memoryAvailableMib: number;
  /** Undefined if its hosts take no memory of the node. */
  readonly memoryTotalMib: number | undefined;
  readonly imageVersion: string;
}

/** Reports the worker's status once. */
export async function reportStatus(deps: {
  readonly hypervisor: Pick<Hypervisor, 'name' | 'imageVersion' | 'hasTemplate'>;
  readonly plans: readonly Plan[];
  readonly report: (status: WorkerStatus) => Promise<void>;
}): Promise<void> {
  const { hypervisor, plans, report } = deps;
  const templates: string[] = [];
  for (const { name } of plans) if (await hypervisor.hasTemplate(name)) templates.push(name);
  await report({
    hypervisor: hypervisor.name,
    templates,
    memoryAvailableMib: await availableMib(),
    memoryTotalMib: hypervisor.name === 'simulated' ? undefined : Math.floor(totalmem() / 1024 ** 2),
    imageVersion: hypervisor.imageVersion,
  });
}
