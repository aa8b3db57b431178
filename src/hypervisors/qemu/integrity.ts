import type { Integrity } from '../../core/hypervisor/integrity.ts';
import type { QemuDeps } from './deps.ts';
import { completeGrowth } from './grow-host.ts';
import { verifyHost } from './integrity/verify.ts';
import { markQuarantined, unmarkQuarantined } from './quarantine-mark.ts';

export function createIntegrity(deps: QemuDeps): Integrity {
  const { hosts, network, recordedRules, logger } = deps;
  return {
    async verify(hostId) {
      const record = await hosts.requireRecord(hostId);
      const at = hosts.layout(hostId, record.slot);
      // A worker was killed while it added to the host, or the database has forgotten that update.
      await completeGrowth(deps, at, record);
      return verifyHost(at, deps);
    },

    async quarantine(hostId) {
      const record = await hosts.record(hostId);
      if (record === undefined) return;
      const at = hosts.layout(hostId, record.slot);
      // First, so that a kill after this line leaves a host that can't be connected.
      await markQuarantined(at);
      await network.disconnect(at, record.publishedPorts);
    },

    async release(hostId) {
      const record = await hosts.record(hostId);
      if (record === undefined) return;
      const at = hosts.layout(hostId, record.slot);
      // The recorded rules are those from before the quarantine. An unreadable manifest is drift for the next check.
      await recordedRules.remove(at).catch((error: unknown) => {
        logger.warn(
          { host: hostId, err: error },
          'The manifest of a host that leaves quarantine is unreadable; the next check reports it',
        );
      });
      await unmarkQuarantined(at);
    },
  };
}
