import { totalmem } from 'node:os';
import type { Plan } from '../core/catalog/catalog.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { CurrentImageRecord } from '../core/ports/current-image.ts';
import type { DiskSpace } from '../core/hypervisor/run-state.ts';
import type { WorkerRecords, WorkerReport } from '../core/ports/worker-records.ts';
import { availableMib } from './node-memory.ts';
import type { Preparation } from './preparation.ts';

/** Reports that this worker is alive, what it makes hosts from, and the memory of its node. */
export async function sendHeartbeat(deps: {
  /** Of the worker. */
  readonly name: string;
  readonly hypervisor: Pick<Hypervisor, 'name' | 'imageVersion' | 'hasTemplate' | 'diskSpace'>;
  readonly diskReserveMib: number;
  readonly plans: readonly Plan[];
  readonly workers: Pick<WorkerRecords, 'report'>;
  readonly preparation: Pick<Preparation, 'state'>;
  readonly image: Pick<CurrentImageRecord, 'write'>;
}): Promise<void> {
  const { name, hypervisor, plans, workers, preparation, image, diskReserveMib } = deps;
  const templates: string[] = [];
  for (const plan of plans)
    if (await hypervisor.hasTemplate({ planName: plan.name, shape: plan.shape })) templates.push(plan.name);
  const space = await hypervisor.diskSpace();
  await workers.report({
    name,
    hypervisor: hypervisor.name,
    templates,
    memoryAvailableMib: await availableMib(),
    // Simulated hosts take no memory of the node.
    memoryTotalMib: hypervisor.name === 'simulated' ? undefined : Math.floor(totalmem() / 1024 ** 2),
    ...(space && { disk: reportedDisk(space, diskReserveMib) }),
    preparation: preparation.state(),
  });
  const version = hypervisor.imageVersion();
  if (version !== undefined) await image.write(version);
}

function reportedDisk({ availableBytes, hostBytes }: DiskSpace, reserveMib: number): WorkerReport['disk'] {
  const mib = (bytes: number) => Math.floor(bytes / 1024 ** 2);
  const ofHosts = [...hostBytes.values()].reduce((sum, bytes) => sum + bytes, 0);
  return { availableMib: mib(availableBytes), capacityMib: mib(availableBytes + ofHosts), reserveMib };
}
