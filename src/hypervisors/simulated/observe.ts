import type { ObservedHost } from '../../core/hypervisor/lifecycle.ts';
import type { Logger } from '../../lib/logger.ts';
import { createHostObserver } from '../observe-host.ts';
import type { HostFiles } from './host-files.ts';
import type { ServedEngines } from './served-engines.ts';

/** How the driver looks at one host. A host whose engine nobody serves is served, if its file says that its VM runs. */
export function createSimulatedObserver(
  files: HostFiles,
  engines: ServedEngines,
  logger: Logger | undefined,
): (hostId: string) => Promise<ObservedHost> {
  async function observe(hostId: string): Promise<ObservedHost> {
    const running = await engines.runningVm(hostId);
    const { spec, vm } = (await files.readHost(hostId)) ?? {};
    // It may have, if the file that tells it is damaged.
    const disk = await files.readDisk(hostId).catch(() => ({ hasRun: true, memoryLostAt: undefined }));
    const identity = {
      ...{ hostId, owner: spec?.owner, slot: spec?.slot, parked: vm?.parked ?? false, hasRun: disk.hasRun },
      memoryLostAt: disk.memoryLostAt === undefined ? undefined : new Date(disk.memoryLostAt),
    };
    if (running !== undefined) {
      return { ...identity, state: running.parked || running.power === 'paused' ? 'paused' : 'running' };
    }
    return { ...identity, state: vm?.power === 'suspended' ? 'suspended' : 'stopped' };
  }
  return createHostObserver(observe, (hostId) => files.slotByDisk(hostId), logger);
}
