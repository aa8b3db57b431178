import type { Knex } from 'knex';
import {
  chooseInstallationId,
  confirmInstallationId,
  installationId,
  unconfirmedInstallationId,
} from '../config/installation-file.ts';
import { masterKeyText, siteId } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';
import {
  checkDatabase,
  checkInstallation,
  checkSite,
  InstallationError,
  type StateDirectory,
} from '../core/installation.ts';
import type { Installation } from '../core/ports/installation.ts';
import { hostsInStateDirectory } from '../hypervisors/host-folders.ts';
import { CryptoError } from '../lib/crypto-error.ts';
import { migrateAlone } from '../postgres/database.ts';
import { createInstallationRecords, readDatabaseContent } from '../postgres/installation.ts';
import { masterKeysFromText } from '../secrets/master-key.ts';

/**
 * Makes sure that the database is this state directory's, or that both are new, and only then brings the schema up to
 * date and records the installation. Killed at any point, the next start continues.
 * @param owner a pool of at least two connections of the owner of the tables.
 * @throws InstallationError with each remedy; the database is unchanged then.
 */
export async function takeDatabase(settings: Settings, owner: Knex): Promise<Installation> {
  const directory = await readStateDirectory(settings);
  await migrateAlone(owner, async () => {
    checkDatabase(directory, await readDatabaseContent(owner));
  });
  const id = directory.id ?? (await chooseInstallationId(settings));
  const installation = await createInstallationRecords(owner).record({ id, site: directory.site });
  // Of two first starts on one empty database, the later one ends here.
  checkInstallation({ ...directory, unconfirmedId: id }, installation);
  await confirmInstallationId(settings, installation.id);
  return installation;
}

/**
 * The installation of a process that is about to use the database.
 * @throws InstallationError if the database is not that of the state directory.
 */
export async function requireInstallation(
  settings: Settings,
  database: Knex,
  name: 'api' | 'gateway' | 'worker',
): Promise<Installation> {
  const installation = await createInstallationRecords(database).find();
  if (installation === undefined) {
    throw new InstallationError(
      'The database belongs to no installation yet: run "npm start" without PROCESS once, which brings it up to date and records the installation.',
    );
  }
  const { stateDirectory: path } = settings;
  checkInstallation({ path, id: await installationId(settings), unconfirmedId: undefined }, installation);
  if (name === 'worker') checkSite({ path, site: await siteId(settings) }, installation);
  return installation;
}

async function readStateDirectory(settings: Settings): Promise<StateDirectory> {
  return {
    path: settings.stateDirectory,
    id: await installationId(settings),
    unconfirmedId: await unconfirmedInstallationId(settings),
    site: await siteId(settings),
    hosts: await hostsInStateDirectory(settings.stateDirectory),
    masterKeys: await masterKeyIds(settings),
  };
}

/** None if the file can't be read as keys: the api says why when it opens it. */
async function masterKeyIds(settings: Settings): Promise<readonly string[]> {
  const text = await masterKeyText(settings, undefined);
  try {
    return text === undefined ? [] : masterKeysFromText(text).map(({ id }) => id.toString('hex'));
  } catch (error) {
    if (error instanceof CryptoError) return [];
    throw error;
  }
}
