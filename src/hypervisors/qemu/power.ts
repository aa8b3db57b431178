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
      if (!(await resumeHost(deps, at, record))) await vms.requireAlive(at);
    },

    traffic: (specs) => readTraffic(specs.map((spec) => hosts.layoutOfSpec(spec))),
  };
}
