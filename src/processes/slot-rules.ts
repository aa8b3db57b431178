import { type Settings, SettingsError } from '../config/settings.ts';
import type { Catalog } from '../core/catalog/catalog.ts';
import { allPlans } from '../core/catalog/lookup.ts';
import { addressPairs } from '../lib/ipv4.ts';
import type { SlotRules } from '../postgres/database.ts';

/** Least size of a block, even if the catalog's plans publish fewer ports: a plan may be extended later. */
const leastPortsPerHost = 20;

/**
 * How ports and addresses are divided among hosts: each slot has a block of ports, large enough for any plan, and two
 * addresses.
 * @throws SettingsError if the range of ports has no room for a single block.
 */
export function slotRules(settings: Settings, catalog: Catalog): SlotRules {
  const { first, last } = settings.publishedPorts;
  const size = Math.max(leastPortsPerHost, ...allPlans(catalog).map((plan) => plan.publishedPorts));
  const blocks = Math.floor((last - first + 1) / size);
  if (blocks < 1) {
    throw new SettingsError(
      `BERTH_PUBLISHED_PORTS (${first}-${last}) contains fewer than the ${size} ports that a host needs: widen the range.`,
    );
  }
  return {
    ...{ first, size, count: Math.min(blocks, addressPairs(settings.hostNetwork)) },
    restSeconds: settings.slotRestSeconds,
  };
}
