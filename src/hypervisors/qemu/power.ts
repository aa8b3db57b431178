import { MemoryLostError } from '../../core/hypervisor/memory-lost-error.ts';
import type { Power } from '../../core/hypervisor/power.ts';
import type { QemuDeps } from './deps.ts';
import { readTraffic } from './network/traffic.ts';
import { resumeHost } from './resume-host.ts';

export function createPower(deps: QemuDeps): Power {
  const { hosts, vms, suspension } = deps;
  return {
    async pause(hostId) {
      const record = await hosts.requireRecord(hostId);
      const at = hosts.layout(hostId, record.slot);
      await vms.requireAlive(at);
      await suspension.pause(at, record);
    },

    async suspend(hostId) {
      const record = await hosts.requireRecord(hostId);
      const at = hosts.layout(hostId, record.slot);
      if (await suspension.isSuspended(at)) return;
      await vms.requireAlive(at);
      await suspension.suspend(at, record);
    },

    async resume(spec) {
      const at = hosts.layoutOfSpec(spec);
      const record = await hosts.requireRecord(spec.hostId);
      const outcome = await resumeHost(deps, at, record);
      if (outcome === 'nothing') await vms.requireAlive(at);
      if (outcome === 'memory lost') {
        throw new MemoryLostError(
          `the memory of host ${spec.hostId} can't be loaded; its next start boots it from its disk`,
        );
      }
    },

    traffic: (specs) => readTraffic(specs.map((spec) => hosts.layoutOfSpec(spec))),
  };
}
