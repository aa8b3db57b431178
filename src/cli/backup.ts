import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Knex } from 'knex';
import { installationId } from '../config/installation-file.ts';
import { databaseUrl, masterKeyFile, masterKeyText, siteId } from '../config/secrets.ts';
import type { Settings } from '../config/settings.ts';
import { lockStateDirectory } from '../hypervisors/state-directory-lock.ts';
import { exists } from '../lib/exists.ts';
import { isListening } from '../lib/is-listening.ts';
import { printLine } from '../lib/terminal.ts';
import { BackupError, type BackupHeader, readBackupHeader } from '../postgres/backup/backup-file.ts';
import { restoreBackup } from '../postgres/backup/restore-backup.ts';
import { writeBackup } from '../postgres/backup/write-backup.ts';
import { openDatabase } from '../postgres/database.ts';
import { readDatabaseContent } from '../postgres/installation.ts';
import { embeddedFolders } from '../postgres/server/embedded-folders.ts';
import { ownerUrl, startEmbeddedPostgres } from '../postgres/server/embedded.ts';
import { masterKeysFromText } from '../secrets/master-key.ts';

/** `berth backup FILE`: writes all rows of one moment to a file, while Berth runs or not. */
export async function runBackup(settings: Settings, file: string): Promise<void> {
  const postgres = await openForBackup(settings);
  try {
    const { tables, rows } = await withOwner(postgres.url, (owner) => writeBackup(owner, file));
    printLine(`Backed up ${rows} rows of ${tables} tables to ${file}.`);
    printLine(
      `It is useless without the files installation, site and ${masterKeyFile(settings)}: back them up separately (folder ${settings.stateDirectory}).`,
    );
  } finally {
    await postgres.stop();
  }
}

/** `berth restore FILE`: replaces the database of a stopped Berth by a backup, all of it or nothing. */
export async function runRestore(settings: Settings, file: string): Promise<void> {
  const lock = await lockStateDirectory(settings.stateDirectory);
  try {
    const header = await readBackupHeader(file);
    await requireSameInstallation(settings, header);
    const postgres = await openForRestore(settings);
    try {
      const { tables, rows } = await withOwner(postgres.url, async (owner) => {
        await requireOwnDatabase(owner, header);
        return restoreBackup(owner, file, header);
      });
      printLine(`Restored ${rows} rows of ${tables} tables, as they were at ${header.createdAt}.`);
      printLine('Start Berth, then see "berth reconcile": it lists the hosts that the backup does not know.');
    } finally {
      await postgres.stop();
    }
  } finally {
    await lock.release();
  }
}

/** A database that is reachable until `stop`. */
interface Reachable {
  readonly url: string;
  readonly stop: () => Promise<void>;
}
const nothing = () => Promise.resolve();

async function openForBackup(settings: Settings): Promise<Reachable> {
  const external = await databaseUrl(settings);
  if (external !== undefined) return { url: external, stop: nothing };
  const { directory, socketDirectory } = embeddedFolders(settings, await siteId(settings));
  if (!(await exists(path.join(directory, 'data', 'PG_VERSION')))) {
    throw new BackupError(`There is no database in ${directory}: is BERTH_STATE_DIR right?`);
  }
  if (await isListening(path.join(socketDirectory, '.s.PGSQL.5432'))) {
    return { url: await ownerUrl(directory, socketDirectory), stop: nothing };
  }
  const lock = await lockStateDirectory(settings.stateDirectory);
  try {
    const postgres = await startEmbeddedPostgres({ directory, socketDirectory, former: 'use' });
    return {
      url: postgres.connectionString,
      async stop() {
        await postgres.stop();
        await lock.release();
      },
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

async function openForRestore(settings: Settings): Promise<Reachable> {
  const external = await databaseUrl(settings);
  if (external !== undefined) return { url: external, stop: nothing };
  const postgres = await startEmbeddedPostgres(embeddedFolders(settings, await siteId(settings)));
  return { url: postgres.connectionString, stop: () => postgres.stop() };
}

async function withOwner<T>(url: string, act: (owner: Knex) => Promise<T>): Promise<T> {
  const owner = openDatabase(url, { maxConnections: 1 });
  try {
    return await act(owner);
  } finally {
    await owner.destroy();
  }
}

/** The hosts of a backup are in the state directory of its installation, and its secrets need that one's key. */
async function requireSameInstallation(settings: Settings, header: BackupHeader): Promise<void> {
  const { installation, masterKeys } = header;
  const { stateDirectory } = settings;
  const putBack = 'Put back its files installation, site and master.key first. Nothing was changed.';
  const id = await installationId(settings);
  if (id !== installation.id) {
    throw new BackupError(
      `The backup is of installation ${installation.id}, and ${stateDirectory} ${id === undefined ? 'belongs to none yet' : `is of ${id}`}. ${putBack}`,
    );
  }
  const site = (await readFile(path.join(stateDirectory, 'site'), 'utf8').catch(() => '')).trim();
  if (site !== installation.site) {
    throw new BackupError(
      `The backup is of the site ${installation.site}, and ${stateDirectory} of ${site === '' ? 'none' : site}. ${putBack}`,
    );
  }
  const text = await masterKeyText(settings, undefined);
  const keys = text === undefined ? [] : masterKeysFromText(text).map((key) => key.id.toString('hex'));
  const missing = masterKeys.filter((key) => !keys.includes(key));
  if (missing.length > 0) {
    throw new BackupError(
      `The secrets of the backup are sealed with the master key ${missing.join(' and ')}, which ${masterKeyFile(settings)} does not have. ${putBack}`,
    );
  }
}

async function requireOwnDatabase(owner: Knex, { installation }: BackupHeader): Promise<void> {
  const content = await readDatabaseContent(owner);
  if (content.kind === 'empty') return;
  if (content.kind === 'recorded' && content.installation.id === installation.id) return;
  throw new BackupError(
    `The database is not that of installation ${installation.id}, and not empty. Nothing was changed. Set DATABASE_URL_FILE to the address of an empty one.`,
  );
}
