import { randomUUID } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { isUuid } from '../lib/uuid.ts';
import { writeFileAtomically } from '../lib/write-file-atomically.ts';
import { type Settings, SettingsError } from './settings.ts';

/** The file with the id of the installation that the state directory belongs to. Not a secret. */
export const installationFile = (settings: Settings) => path.join(settings.stateDirectory, 'installation');

/**
 * The id of a new installation until the database has it: a start that is killed in between finds it here, and
 * continues.
 */
const newInstallationFile = (settings: Settings) => `${installationFile(settings)}.new`;

/**
 * The id of the installation that the state directory belongs to; undefined if the directory is new.
 * @throws SettingsError if the file contains anything else.
 */
export function installationId(settings: Settings): Promise<string | undefined> {
  return readId(installationFile(settings));
}

/** The id of an installation that an earlier start of this state directory has begun but perhaps not recorded. */
export function unconfirmedInstallationId(settings: Settings): Promise<string | undefined> {
  return readId(newInstallationFile(settings));
}

/** Chooses the id of a new installation, on the disk before this returns. */
export async function chooseInstallationId(settings: Settings): Promise<string> {
  const chosen = await unconfirmedInstallationId(settings);
  if (chosen !== undefined) return chosen;
  const id = randomUUID();
  await writeFileAtomically(newInstallationFile(settings), `${id}\n`, { mode: 0o644 });
  return id;
}

/** Makes the state directory that of the installation, which the database has on record. */
export async function confirmInstallationId(settings: Settings, id: string): Promise<void> {
  await writeFileAtomically(installationFile(settings), `${id}\n`, { mode: 0o644 });
  await rm(newInstallationFile(settings), { force: true });
}

async function readId(file: string): Promise<string | undefined> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  const id = text.trim().toLowerCase();
  if (!isUuid(id)) {
    throw new SettingsError(
      `${file} does not contain a UUID: restore it from a backup, or write the id of the installation into it ("SELECT id FROM installation" in its database).`,
    );
  }
  return id;
}
