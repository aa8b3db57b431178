import { setTimeout as delay } from 'node:timers/promises';
import type { Knex } from 'knex';
import type { Settings } from '../config/settings.ts';
import { RefusedError } from '../core/errors.ts';
import type { Logger } from '../lib/logger.ts';
import { openDatabase, processTimeouts } from '../postgres/database.ts';
import { requireConfirmedHistory } from '../postgres/database-history.ts';
import { refuseOwner } from '../postgres/server/database-roles.ts';
import { highestMark } from './installation-memory.ts';
import { requireInstallation } from './installation.ts';

const retryMs = 250;
const remindEveryMs = 30_000;

/**
 * Opens the database of an api or a gateway: that of the installation, and only connections to a confirmed history.
 * Waits until a worker has confirmed it, as a running process does.
 * @throws InstallationError if the database is another installation's; Error if Postgres can't be reached.
 */
export async function openCheckedDatabase(
  settings: Settings,
  name: 'api' | 'gateway',
  connectionString: string,
  options: { readonly logger: Logger; readonly maxConnections?: number },
): Promise<Knex> {
  const unchecked = openDatabase(connectionString, { maxConnections: 1, timeouts: processTimeouts });
  try {
    await refuseOwner(unchecked, name);
    await requireInstallation(settings, unchecked, name);
  } finally {
    await unchecked.destroy();
  }
  const { logger, ...pool } = options;
  const check = requireConfirmedHistory(highestMark(settings));
  const database = openDatabase(connectionString, { ...pool, timeouts: processTimeouts, check });
  let remindedAt = -Infinity;
  for (;;) {
    try {
      await database.raw('SELECT');
      return database;
    } catch (error) {
      if (!(error instanceof RefusedError)) {
        await database.destroy();
        throw error;
      }
      if (performance.now() - remindedAt > remindEveryMs) {
        remindedAt = performance.now();
        logger.warn(
          {},
          'The database was restored or failed over; waiting until a worker has compared it with the node',
        );
      }
      await delay(retryMs);
    }
  }
}
