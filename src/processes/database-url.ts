import { databaseUrl, roleDatabaseUrl } from '../config/secrets.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import { allPlans } from '../core/catalog/lookup.ts';
import type { Catalog } from '../core/catalog/catalog.ts';
import type { PortBlocks } from '../postgres/database.ts';
import type { DatabaseRole } from '../postgres/server/grants.ts';

/**
 * The connection string of a role: its own where the operator has set one, else DATABASE_URL_FILE, where
 * `npm start` names the one that it has made.
 * @throws SettingsError where a role is run alone and none is set: only `start` brings a Postgres of its own.
 */
export async function requireDatabaseUrl(settings: Settings, role: DatabaseRole): Promise<string> {
  const url = (await roleDatabaseUrl(settings, role)) ?? (await databaseUrl(settings));
  if (url === undefined) {
    throw new SettingsError(
      `BERTH_${role.toUpperCase()}_DATABASE_URL_FILE is not set: a role that runs alone needs to know where Postgres is.`,
    );
  }
  return url;
}

/** Room in each block of ports, even where the catalog's plans publish fewer: a plan may grow. */
const leastPortsPerHost = 20;

/**
 * How the published ports are divided among hosts: every host has a block, large enough for any plan.
 * @throws SettingsError where not even one block fits.
 */
export function portBlocks(settings: Settings, catalog: Catalog): PortBlocks {
  const { first, last } = settings.publishedPorts;
  const size = Math.max(leastPortsPerHost, ...allPlans(catalog).map((plan) => plan.publishedPorts));
  const count = Math.floor((last - first + 1) / size);
  if (count < 1) {
    throw new SettingsError(
      `BERTH_PUBLISHED_PORTS (${first}-${last}) holds fewer than the ${size} ports that a host needs: widen it.`,
    );
  }
  return { first, size, count };
}
