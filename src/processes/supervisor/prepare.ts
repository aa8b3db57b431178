import { type Settings, SettingsError } from '../../config/settings.ts';
import type { Catalog } from '../../core/catalog/catalog.ts';
import { refuseDroppedPlans } from '../../core/catalog/dropped-plans.ts';
import { errorMessage } from '../../lib/error-message.ts';
import { repeat } from '../../lib/repeat.ts';
import { openDatabase } from '../../postgres/database.ts';
import { createPlansInUse } from '../../postgres/plans-in-use.ts';
import { createLeadership } from '../../postgres/records/leadership.ts';
import { provideDatabaseRoles } from '../../postgres/provision-roles.ts';
import { embeddedFolders } from '../../postgres/server/embedded-folders.ts';
import { startEmbeddedPostgres } from '../../postgres/server/embedded.ts';
import { waitUntilReachable } from '../../postgres/server/reachable.ts';
import { createHostsLease } from '../hosts-lease.ts';
import { takeDatabase } from '../installation.ts';
import { createLogger } from '../logger.ts';

const postgresCheckEveryMs = 2_000;
/** How long a start waits for a Postgres that is not reachable yet. Milliseconds. */
const postgresPatienceMs = 30_000;

/** Starts the embedded Postgres, and starts it again if it ends. */
export async function startOwnPostgres(
  settings: Settings,
  site: string,
): Promise<{ url: string; stop: () => Promise<void> }> {
  const postgres = await startEmbeddedPostgres(embeddedFolders(settings, site));
  const logger = createLogger('postgres', settings.logLevel);
  const stopWatching = repeat(
    postgresCheckEveryMs,
    () => postgres.ensureRunning(),
    (error) => {
      logger.error(
        { err: error },
        `The embedded Postgres has ended and can't be started; retrying in ${postgresCheckEveryMs / 1000} s`,
      );
    },
  );
  return {
    url: postgres.connectionString,
    async stop() {
      await stopWatching();
      await postgres.stop();
    },
  };
}

/**
 * Waits for Postgres, checks that the database belongs to this installation, applies the migrations and provides the
 * database roles.
 * @returns for each process the file with its connection string.
 * @throws SettingsError if Postgres can't be reached; InstallationError if the database is another installation's.
 */
export async function prepareDatabase(
  settings: Settings,
  catalog: Catalog,
  url: string,
  say: (line: string) => void,
): ReturnType<typeof provideDatabaseRoles> {
  await waitUntilReachable(url, {
    timeoutMs: postgresPatienceMs,
    onWaiting: (error) => {
      say(`Postgres can't be reached (${error.message}); waiting for it`);
    },
  }).catch((cause: unknown) => {
    throw new SettingsError(
      `Postgres can't be reached (${errorMessage(cause)}): start it, or set DATABASE_URL_FILE (or DATABASE_URL) to its address; without either Berth runs an embedded one.`,
      { cause },
    );
  });
  const database = openDatabase(url, { maxConnections: 2 });
  try {
    await takeDatabase(settings, database);
    // Before the database roles get this state directory's passwords, with which a running worker could not log in.
    await (await createHostsLease(createLeadership(database), settings)).acquire();
    await refuseDroppedPlans(createPlansInUse(database), catalog);
    return await provideDatabaseRoles(settings, url, database);
  } finally {
    await database.destroy();
  }
}
