import type { HostFiles } from './host-files.ts';
import type { ServedEngines } from './served-engines.ts';

/**
 * Continues a paused, halted or suspended VM; a running one is left alone. `nothing`: there is none. `memory lost`: the file for
 * the memory of a suspended one is missing or damaged, and the host is stopped.
 */
export async function resume(
  files: HostFiles,
  engines: ServedEngines,
  hostId: string,
): Promise<'resumed' | 'nothing' | 'memory lost'> {
  const host = await files.readHost(hostId);
  if (host?.vm === undefined) return 'nothing';
  const { spec, vm } = host;
  if (vm.power === 'suspended') {
    if (!(await files.hasMemory(hostId))) {
      await files.writeDisk(hostId, {
        ...(await files.readDisk(hostId)),
        memoryLostAt: new Date().toISOString(),
      });
      await files.writeHost({ spec, vm: undefined });
      return 'memory lost';
    }
    // Paused first: a request that comes before the VM runs has to wait, not to be refused.
    await files.writeHost({ spec, vm: { ...vm, power: 'paused' } });
  }
  if ((await engines.runningVm(hostId)) === undefined) return 'nothing';
  if (vm.power !== 'running' || vm.halted === true) {
    await files.writeHost({ spec, vm: { ...vm, power: 'running', halted: false } });
  }
  return 'resumed';
}
