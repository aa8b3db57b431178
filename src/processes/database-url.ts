import { databaseUrl, processDatabaseUrl } from '../config/secrets.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import type { DatabaseRole } from '../postgres/server/grants.ts';

/**
 * The connection string of a process: its own if the operator has set one, else DATABASE_URL_FILE, in which
 * `npm start` passes the one it has made.
 * @throws SettingsError if neither is set: only `npm start` without PROCESS runs an embedded Postgres.
 */
export async function requireDatabaseUrl(settings: Settings, name: DatabaseRole): Promise<string> {
  const url = (await processDatabaseUrl(settings, name)) ?? (await databaseUrl(settings));
  if (url === undefined) {
    throw new SettingsError(
      `BERTH_${name.toUpperCase()}_DATABASE_URL_FILE is not set: a process that runs alone needs the address of Postgres. Set it, or DATABASE_URL_FILE.`,
    );
  }
  return url;
}
