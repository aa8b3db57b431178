import { isDeepStrictEqual } from 'node:util';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import { enginePort, type Network } from '../../core/hypervisor/network.ts';
import type { QemuDeps } from './deps.ts';
import { writeHostRecord } from './host-record.ts';
import { isQuarantined } from './quarantine-mark.ts';

export function createNetwork({ hosts, network, recordedRules }: QemuDeps): Network {
  return {
    async connect(spec) {
      const at = hosts.layoutOfSpec(spec);
      if (await isQuarantined(at)) throw new HypervisorError(`host ${spec.hostId} is in quarantine`);
      const record = await hosts.requireRecord(spec.hostId);
      const { publishedPorts, egress } = spec;
      const portsChange = !isDeepStrictEqual(record.publishedPorts, publishedPorts);
      // Undefined while they change: if this is cut off, the next call asks the firewall.
      if (portsChange) await writeHostRecord(at.record, { ...record, publishedPorts: undefined });
      const former = portsChange ? undefined : publishedPorts;
      await recordedRules.reportDrift(at);
      await recordedRules.remove(at);
      const firewall = await network.connect(at, publishedPorts, egress, former);
      if (portsChange) await writeHostRecord(at.record, { ...record, publishedPorts });
      await recordedRules.write(at, firewall);
      return { host: at.hostAddress, port: enginePort };
    },

    repairNode: () => network.repairNode(),
  };
}
