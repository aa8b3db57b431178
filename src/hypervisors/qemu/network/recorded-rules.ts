import type { Logger } from '../../../lib/logger.ts';
import type { Manifests } from '../integrity/manifest.ts';
import type { FirewallFacts, HostNetworking } from './network.ts';
import type { HostLayout } from '../layout.ts';
import { firewallDrift } from '../integrity/verify.ts';

const firewallSections: readonly string[] = ['firewall', 'rule handles'];

/** The firewall rules in a host's manifest: those applied last, which must be in force. */
export interface RecordedRules {
  write(layout: HostLayout, rules: FirewallFacts): Promise<void>;
  /** Removes the rules from the manifest: while they change, and after the host was closed. */
  remove(layout: HostLayout): Promise<void>;
  /** False also if the host is closed, or its run directory is gone: after a reboot of the node. */
  areInForce(layout: HostLayout): Promise<boolean>;
  /** Logs drift before the rules are applied again, because that would hide it. */
  reportDrift(layout: HostLayout): Promise<void>;
}

export function createRecordedRules(
  manifests: Manifests,
  network: HostNetworking,
  logger: Logger,
): RecordedRules {
  return {
    async write(layout, rules) {
      const manifest = await manifests.read(layout.manifest);
      if (manifest === undefined) return;
      await manifests.write(layout.manifest, { ...manifest, facts: { ...manifest.facts, ...rules } });
    },

    async remove(layout) {
      const manifest = await manifests.read(layout.manifest);
      if (manifest?.facts.firewall === undefined) return;
      const facts = Object.entries(manifest.facts).filter(([part]) => !firewallSections.includes(part));
      await manifests.write(layout.manifest, { ...manifest, facts: Object.fromEntries(facts) });
    },

    async areInForce(layout) {
      const manifest = await manifests.read(layout.manifest);
      if (manifest?.facts.firewall === undefined) return false;
      return (await firewallDrift(layout, { network, manifests })).length === 0;
    },

    async reportDrift(layout) {
      const drift = await firewallDrift(layout, { network, manifests });
      if (drift.length === 0) return;
      logger.error(
        { event: 'host.drift', host: layout.id, drift },
        'The firewall rules of a host have drifted; applying them again',
      );
    },
  };
}
