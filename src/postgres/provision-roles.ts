import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Knex } from 'knex';
import { processDatabaseUrl } from '../config/secrets.ts';
import { type Settings, SettingsError } from '../config/settings.ts';
import {
  applyGrants,
  canLogIn,
  forEachRole,
  roleNames,
  type RoleNames,
  setRolePassword,
  urlFor,
  userOf,
} from './server/database-roles.ts';
import { type DatabaseRole, databaseRoles } from './server/grants.ts';
import { writeFileAtomically } from '../lib/write-file-atomically.ts';

/** The file with the connection string of a role that `npm start` has made. */
const roleUrlFile = (settings: Settings, role: DatabaseRole) =>
  path.join(settings.stateDirectory, `database-url.${role}`);

/**
 * Makes the database roles, or uses those that the operator has made, and grants them their rights on the current
 * tables.
 * @param ownerUrl connection string of the owner of the tables.
 * @returns for each role the file that contains its connection string.
 * @throws DatabaseRoleError, SettingsError with the remedy.
 */
export async function provideDatabaseRoles(
  settings: Settings,
  ownerUrl: string,
  owner: Knex,
): Promise<Readonly<Record<DatabaseRole, string>>> {
  const { api, gateway, worker } = settings.processDatabaseUrlFiles;
  if (api !== undefined && gateway !== undefined && worker !== undefined) {
    await applyGrants(owner, await givenNames(settings, ownerUrl));
    return { api, gateway, worker };
  }
  if ([api, gateway, worker].some((file) => file !== undefined)) {
    throw new SettingsError(
      'BERTH_API_DATABASE_URL_FILE, BERTH_GATEWAY_DATABASE_URL_FILE and BERTH_WORKER_DATABASE_URL_FILE go together: set all three, or none.',
    );
  }
  const names = await roleNames(owner);
  const urls = new Map<DatabaseRole, string>();
  for (const role of databaseRoles) urls.set(role, await storedUrl(settings, role, ownerUrl, names[role]));
  for (const [role, url] of urls) {
    const password = passwordOf(url);
    if (!(await canLogIn(url))) await setRolePassword(owner, names[role], password);
  }
  await applyGrants(owner, names);
  return forEachRole((role) => roleUrlFile(settings, role));
}

/** Names of the roles that the operator has made: three different ones, none of them the owner. */
async function givenNames(settings: Settings, ownerUrl: string): Promise<RoleNames> {
  const nameOf = async (role: DatabaseRole) => userOf((await processDatabaseUrl(settings, role)) ?? '') ?? '';
  const names = {
    api: await nameOf('api'),
    gateway: await nameOf('gateway'),
    worker: await nameOf('worker'),
  };
  if (new Set([...Object.values(names), userOf(ownerUrl)]).size < 4) {
    throw new SettingsError(
      'BERTH_API_DATABASE_URL_FILE, BERTH_GATEWAY_DATABASE_URL_FILE and BERTH_WORKER_DATABASE_URL_FILE must name three users, none of them that of DATABASE_URL: make a role for each.',
    );
  }
  return names;
}

/** The stored connection string of a role with its password; server and database follow the owner's. */
async function storedUrl(
  settings: Settings,
  role: DatabaseRole,
  ownerUrl: string,
  name: string,
): Promise<string> {
  const file = roleUrlFile(settings, role);
  const stored = await readFile(file, 'utf8').catch(() => '');
  const password = passwordOf(stored.trim()) || randomBytes(24).toString('hex');
  const url = urlFor(ownerUrl, name, password);
  // Before the role gets the password: a start after a crash in between finds the file and sets the password again.
  await writeFileAtomically(file, `${url}\n`);
  return url;
}

const passwordOf = (url: string) => /^\w+:\/\/[^:/?]+:([0-9a-f]+)@/.exec(url)?.[1] ?? '';
