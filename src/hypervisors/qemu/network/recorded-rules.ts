import type { Logger } from '../../../lib/logger.ts';
import type { Manifests } from '../integrity/manifest.ts';
import type { FirewallFacts, HostNetworking } from './network.ts';
import type { HostLayout } from '../layout.ts';
import { alteredRules } from '../integrity/verify.ts';

const firewallParts: readonly string[] = ['firewall', 'machine firewall'];

/** The firewall rules of a host in its manifest: those that it was given last, and has to have. */
export interface RecordedRules {
  write(at: HostLayout, rules: FirewallFacts): Promise<void>;
  /** While they change, and once a tenant's host is closed, it has no rules on record. */
  remove(at: HostLayout): Promise<void>;
  /** Before they are written anew: what somebody has altered would be known to nobody then. */
  reportAltered(at: HostLayout): Promise<void>;
}

export function createRecordedRules(
  manifests: Manifests,
  network: HostNetworking,
  logger: Logger,
): RecordedRules {
  return {
    async write(at, rules) {
      const manifest = await manifests.read(at.manifest);
      if (manifest === undefined) return;
      await manifests.write(at.manifest, { ...manifest, facts: { ...manifest.facts, ...rules } });
    },

    async remove(at) {
      const manifest = await manifests.read(at.manifest);
      if (manifest?.facts.firewall === undefined) return;
      const facts = Object.entries(manifest.facts).filter(([part]) => !firewallParts.includes(part));
      await manifests.write(at.manifest, { ...manifest, facts: Object.fromEntries(facts) });
    },

    async reportAltered(at) {
      const drift = await alteredRules(at, { network, manifests });
      if (drift.length === 0) return;
      logger.error(
        { event: 'host.altered', host: at.id, drift },
        'The firewall rules of a host had been altered; they are written anew',
      );
    },
  };
}
