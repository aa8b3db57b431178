import type { Driver } from '../../core/hypervisor/hypervisor.ts';
import { MemoryLostError } from '../../core/hypervisor/memory-lost-error.ts';
import type { HostFiles } from './host-files.ts';
import { resume } from './resume.ts';
import type { ServedEngines } from './served-engines.ts';

/** The driver's methods that stop a simulated VM for a while, and continue it. */
export function createSimulatedPower(
  files: HostFiles,
  engines: ServedEngines,
): Pick<Driver, 'pause' | 'suspend' | 'resume' | 'haltOf' | 'halt'> {
  return {
    async pause(hostId) {
      const vm = await engines.requireVm(hostId);
      await files.changeHost(hostId, (host) => ({ ...host, vm: { ...vm, power: 'paused' } }));
    },

    async suspend(hostId) {
      const host = await files.readHost(hostId);
      if (host?.vm?.power === 'suspended') return;
      const vm = await engines.requireVm(hostId);
      if (host === undefined) return;
      await files.writeMemory(hostId);
      await engines.endVm(hostId, () => files.writeHost({ ...host, vm: { ...vm, power: 'suspended' } }));
    },

    async resume({ hostId }) {
      const outcome = await resume(files, engines, hostId);
      if (outcome === 'nothing') await engines.requireVm(hostId);
      if (outcome === 'memory lost') {
        throw new MemoryLostError(`the memory of simulated host ${hostId} is missing or damaged`);
      }
    },

    async haltOf(hostId) {
      const vm = (await files.readHost(hostId))?.vm;
      return vm?.halted === true && vm.power === 'running' ? 'paused' : undefined;
    },

    async halt(hostId) {
      const vm = await engines.requireVm(hostId);
      await files.changeHost(hostId, (host) => ({ ...host, vm: { ...vm, halted: true } }));
    },
  };
}
