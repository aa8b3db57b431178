import { type Settings, SettingsError } from '../config/settings.ts';
import type { Catalog } from '../core/catalog/catalog.ts';
import { allPlans } from '../core/catalog/lookup.ts';
import type { PortBlocks } from '../postgres/database.ts';

/** Least size of a block, even if the catalog's plans publish fewer ports: a plan may be extended later. */
const leastPortsPerHost = 20;

/**
 * How the published ports are divided among hosts: each host has one block, large enough for any plan.
 * @throws SettingsError if the range has no room for a single block.
 */
export function portBlocks(settings: Settings, catalog: Catalog): PortBlocks {
  const { first, last } = settings.publishedPorts;
  const size = Math.max(leastPortsPerHost, ...allPlans(catalog).map((plan) => plan.publishedPorts));
  const count = Math.floor((last - first + 1) / size);
  if (count < 1) {
    throw new SettingsError(
      `BERTH_PUBLISHED_PORTS (${first}-${last}) contains fewer than the ${size} ports that a host needs: widen the range.`,
    );
  }
  return { first, size, count };
}
