import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Knex } from 'knex';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { readSettings } from '../../src/config/settings.ts';
import { provideDatabaseRoles } from '../../src/postgres/provision-roles.ts';
import { requireDatabaseUrl } from '../../src/processes/database-url.ts';
import { canLogIn, roleNames, urlFor } from '../../src/postgres/server/database-roles.ts';
import { migrate, openDatabase } from '../../src/postgres/database.ts';
import { databaseRoles } from '../../src/postgres/server/grants.ts';
import { inDatabase, query } from '../support/postgres.ts';

/** An operator's own database: its owner is not a superuser, and may make roles or not. */
const server = inject('postgres');
const name = `external_${randomBytes(4).toString('hex')}`;
const ownerName = `${name}_owner`;
const ownerUrl = inDatabase(urlFor(server, ownerName, 'pw'), name);
const given = databaseRoles.map((role) => `${name}_given_${role}`);
let directory: string;
let owner: Knex;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-roles-'));
  await query(server, `CREATE ROLE ${ownerName} LOGIN PASSWORD 'pw'`);
  await query(server, `CREATE DATABASE ${name} OWNER ${ownerName}`);
  owner = openDatabase(ownerUrl, { maxConnections: 1 });
  await migrate(owner);
});
afterEach(async () => {
  const names = await roleNames(owner);
  await owner.destroy();
  await query(server, `DROP DATABASE ${name} WITH (FORCE)`);
  for (const role of [...Object.values(names), ...given, ownerName]) {
    await query(server, `DROP ROLE IF EXISTS ${role}`);
  }
  await rm(directory, { recursive: true });
});

const settings = (more: Record<string, string> = {}) => readSettings({ BERTH_STATE_DIR: directory, ...more });
const read = async (file: string) => (await readFile(file, 'utf8')).trim();

describe('an owner with CREATEROLE', () => {
  beforeEach(() => query(server, `ALTER ROLE ${ownerName} CREATEROLE`));

  it('provision roles: makes the roles, and writes each URL to a file of mode 0600', async () => {
    const files = await provideDatabaseRoles(settings(), ownerUrl, owner);
    for (const role of databaseRoles) {
      const url = await read(files[role]);
      expect(url).toContain(`berth_${name}_${role}:`);
      expect(await canLogIn(url)).toBe(true);
      expect((await stat(files[role])).mode & 0o777).toBe(0o600);
    }
  });

  it('provision roles: changes nothing on the next start, and repairs a wrong password', async () => {
    const files = await provideDatabaseRoles(settings(), ownerUrl, owner);
    const before = await read(files.api);
    await provideDatabaseRoles(settings(), ownerUrl, owner);
    expect(await read(files.api)).toBe(before);
    // As after a start that was killed before it set the password, or after the loss of the state directory.
    await query(server, `ALTER ROLE berth_${name}_api PASSWORD 'another'`);
    await rm(files.worker);
    expect(await canLogIn(before)).toBe(false);
    await provideDatabaseRoles(settings(), ownerUrl, owner);
    for (const role of databaseRoles) expect(await canLogIn(await read(files[role]))).toBe(true);
  });
});

describe('an owner without CREATEROLE', () => {
  it('provision roles: refuses with the remedy if the owner may not make roles', async () => {
    await expect(provideDatabaseRoles(settings(), ownerUrl, owner)).rejects.toThrow(
      /CREATEROLE[^]*BERTH_API_DATABASE_URL_FILE/,
    );
  });

  it('provision roles: uses roles that the operator has made, each by its own setting', async () => {
    const more: Record<string, string> = {};
    for (const [index, role] of databaseRoles.entries()) {
      await query(server, `CREATE ROLE ${given[index] ?? ''} LOGIN PASSWORD 'given'`);
      const file = path.join(directory, `given.${role}`);
      await writeFile(file, inDatabase(urlFor(server, given[index] ?? '', 'given'), name));
      more[`BERTH_${role.toUpperCase()}_DATABASE_URL_FILE`] = file;
    }
    const files = await provideDatabaseRoles(settings(more), ownerUrl, owner);
    for (const role of databaseRoles) {
      const url = await requireDatabaseUrl(settings(more), role);
      expect(url).toBe(await read(files[role]));
      const database = openDatabase(url, { maxConnections: 1 });
      await database.raw('SELECT id FROM hosts');
      await expect(database.raw('DELETE FROM hosts')).rejects.toThrow('permission denied');
      await database.destroy();
    }
    const { BERTH_API_DATABASE_URL_FILE: api = '' } = more;
    await expect(
      provideDatabaseRoles(settings({ BERTH_API_DATABASE_URL_FILE: api }), ownerUrl, owner),
    ).rejects.toThrow('set all three');
    const same = { ...more, BERTH_WORKER_DATABASE_URL_FILE: api };
    await expect(provideDatabaseRoles(settings(same), ownerUrl, owner)).rejects.toThrow('three users');
  });
});
