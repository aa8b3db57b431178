import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { createOnce } from '../lib/create-once.ts';
import { type Settings, SettingsError } from './settings.ts';

/** Credentials of the OSB API and the management API. */
export interface BrokerCredentials {
  readonly broker: { readonly username: string; readonly password: string };
  /** The second line of `BERTH_BROKER_PASSWORD_FILE`: also valid, during a rotation. */
  readonly formerPassword?: string;
  readonly mgmt: { readonly username: string; readonly password: string };
}

/** File with the generated credentials. */
export const credentialsPath = (settings: Settings) => path.join(settings.stateDirectory, 'credentials.json');

const newPassword = () => randomBytes(24).toString('base64url');

/**
 * The credentials of the two APIs: from `BERTH_BROKER_PASSWORD_FILE` if it is set, else generated once
 * into `credentials.json`, which only its owner can read.
 * @throws SettingsError if the file exists but is invalid.
 */
export async function brokerCredentials(settings: Settings): Promise<BrokerCredentials> {
  const file = credentialsPath(settings);
  await createOnce(
    file,
    () =>
      `${JSON.stringify(
        {
          broker: { username: 'berth', password: newPassword() },
          mgmt: { username: 'operator', password: newPassword() },
        },
        undefined,
        2,
      )}\n`,
  );
  const generated = parse(await readFile(file, 'utf8'), file);
  if (settings.brokerUsername === undefined || settings.brokerPasswordFile === undefined) return generated;
  const lines = (await readFile(settings.brokerPasswordFile, 'utf8')).split('\n').map((line) => line.trim());
  const [password, formerPassword, ...more] = lines.filter((line) => line !== '');
  if (password === undefined) {
    throw new SettingsError(`BERTH_BROKER_PASSWORD_FILE: ${settings.brokerPasswordFile} is empty.`);
  }
  if (more.length > 0) {
    throw new SettingsError(
      `BERTH_BROKER_PASSWORD_FILE: ${settings.brokerPasswordFile} has more than two lines: it must contain the password and, during a rotation, the former one.`,
    );
  }
  return {
    broker: { username: settings.brokerUsername, password },
    ...(formerPassword !== undefined && { formerPassword }),
    mgmt: generated.mgmt,
  };
}

function parse(text: string, file: string): BrokerCredentials {
  const remedy = 'Restore it, or remove it to generate new credentials.';
  let value: Partial<BrokerCredentials> | null;
  try {
    value = JSON.parse(text) as Partial<BrokerCredentials> | null;
  } catch (cause) {
    throw new SettingsError(`${file} is not JSON. ${remedy}`, { cause });
  }
  const { broker, mgmt } = value ?? {};
  for (const pair of [broker, mgmt]) {
    if (typeof pair?.username !== 'string' || typeof pair.password !== 'string' || pair.password === '') {
      throw new SettingsError(`${file} lacks a username or a password. ${remedy}`);
    }
  }
  return value as BrokerCredentials;
}

/** File with the master keys. */
export const masterKeyFile = (settings: Settings) =>
  settings.masterKeyFile ?? path.join(settings.stateDirectory, 'master.key');

/**
 * The text of the master key file: that of `BERTH_MASTER_KEY_FILE`, else `master.key`.
 * @param make returns the text of a first key, if `master.key` does not exist; undefined: don't generate one.
 * @returns undefined if the file does not exist.
 */
export async function masterKeyText(
  settings: Settings,
  make: (() => string) | undefined,
): Promise<string | undefined> {
  const file = masterKeyFile(settings);
  if (settings.masterKeyFile === undefined && make !== undefined) await createOnce(file, () => `${make()}\n`);
  return readFile(file, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  });
}

/** The connection string of Postgres that the operator has set; undefined: the embedded one is used. */
export async function databaseUrl(settings: Settings): Promise<string | undefined> {
  if (settings.databaseUrlFile === undefined) return settings.databaseUrl;
  return readUrl('DATABASE_URL_FILE', settings.databaseUrlFile);
}

/** The connection string that the operator has set for a process; undefined: `npm start` creates the database role. */
export async function processDatabaseUrl(
  settings: Settings,
  role: keyof Settings['processDatabaseUrlFiles'],
): Promise<string | undefined> {
  const file = settings.processDatabaseUrlFiles[role];
  return file === undefined ? undefined : readUrl(`BERTH_${role.toUpperCase()}_DATABASE_URL_FILE`, file);
}

async function readUrl(name: string, file: string): Promise<string> {
  const url = (await readFile(file, 'utf8')).trim();
  if (!/^postgres(ql)?:\/\//.test(url)) {
    throw new SettingsError(`${name}: ${file} does not contain a URL that begins with postgresql://.`);
  }
  return url;
}

/**
 * The site id, generated once: it distinguishes the namespaces, rules and cgroups of two installations on one
 * node. Four hexadecimal digits.
 */
export async function siteId(settings: Settings): Promise<string> {
  const file = path.join(settings.stateDirectory, 'site');
  await createOnce(file, () => `${randomBytes(2).toString('hex')}\n`);
  const site = (await readFile(file, 'utf8')).trim();
  if (!/^[0-9a-f]{4}$/.test(site)) {
    throw new SettingsError(`${file} does not contain four hexadecimal digits: restore it from a backup.`);
  }
  return site;
}
