import type { Capabilities } from '../../core/hypervisor/capabilities.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import type { Driver } from '../../core/hypervisor/hypervisor.ts';
import type { Faults } from '../with-faults.ts';
import { type HostFiles, shapeInUse } from './host-files.ts';
import type { ServedEngines } from './served-engines.ts';

const fields = { vcpus: 'vcpus', memory: 'memoryMib', disk: 'diskGib' } as const;
const parts = ['vcpus', 'memory', 'disk'] as const;

/** The driver's methods about the size of a running host. */
export function createSimulatedGrowth(
  files: HostFiles,
  engines: ServedEngines,
  options: { readonly liveGrowth: Capabilities['liveGrowth']; readonly faults: Faults | undefined },
): Pick<Driver, 'grow' | 'hasShape'> {
  return {
    async grow({ hostId, shape }) {
      const vm = await engines.requireVm(hostId);
      const refuse = (why: string): never => {
        throw new HypervisorError(`simulated host ${hostId} can't grow: ${why}`);
      };
      if (vm.parked || vm.power !== 'running') refuse('its VM is paused');
      const host = await files.readHost(hostId);
      const used = host && shapeInUse(host);
      if (host === undefined || used === undefined) return refuse('it is gone');
      const growing = parts.filter((part) => shape[fields[part]] > used[fields[part]]);
      for (const part of ['vcpus', 'memory'] as const)
        if (shape[fields[part]] < used[fields[part]]) refuse(`${part} can't be removed`);
      for (const part of growing)
        if (!options.liveGrowth[part]) refuse(`${part} can't be added to a running VM`);

      // Recorded first: a restart gives the host what a kill or a failure leaves out.
      const next = { ...shape, diskGib: Math.max(shape.diskGib, host.spec.shape.diskGib) };
      let now = used;
      const write = () =>
        files.changeHost(hostId, ({ spec }) => ({
          spec: { ...spec, shape: next },
          vm: { ...vm, shape: now },
        }));
      await write();
      for (const part of growing) {
        if (options.faults?.takesIntoUse?.(part, hostId) === false) return false;
        now = { ...now, [fields[part]]: shape[fields[part]] };
        await write();
      }
      return true;
    },

    async hasShape({ hostId, shape }) {
      const host = await files.readHost(hostId);
      if (host === undefined) return false;
      const isSuspended = host.vm?.power === 'suspended';
      const hasVm = isSuspended || (await engines.runningVm(hostId)) !== undefined;
      const shapes = [host.spec.shape, (hasVm && shapeInUse(host)) || host.spec.shape];
      return shapes.every(
        (one) =>
          one.vcpus === shape.vcpus && one.memoryMib === shape.memoryMib && one.diskGib >= shape.diskGib,
      );
    },
  };
}
