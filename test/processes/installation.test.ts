import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Knex } from 'knex';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { migrationSource } from '../../migrations/index.ts';
import { readSettings } from '../../src/config/settings.ts';
import { InstallationError } from '../../src/core/installation.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createInstallationRecords } from '../../src/postgres/installation.ts';
import { canLogIn } from '../../src/postgres/server/database-roles.ts';
import { requireInstallation, takeDatabase } from '../../src/processes/installation.ts';
import { prepareDatabase } from '../../src/processes/supervisor/prepare.ts';
import { createMasterKeyText, masterKeyFromText } from '../../src/secrets/master-key.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import { catalogFile } from '../support/broker.ts';
import { inDatabase, query } from '../support/postgres.ts';

/** Real databases, and state directories as `npm start` has them. */
const server = inject('postgres');
const cleanUp: (() => Promise<unknown>)[] = [];
let name: string;
let url: string;
let owner: Knex;
let directory: string;

const makeDirectory = async () => {
  const made = await mkdtemp(path.join(tmpdir(), 'berth-installation-'));
  cleanUp.push(() => rm(made, { recursive: true }));
  return made;
};
const makeDatabase = async () => {
  const made = `installation_${randomBytes(4).toString('hex')}`;
  await query(server, `CREATE DATABASE ${made}`);
  cleanUp.push(() => query(server, `DROP DATABASE ${made} WITH (FORCE)`));
  return made;
};
const open = (database: string) => {
  const opened = openDatabase(inDatabase(server, database), { maxConnections: 2 });
  cleanUp.push(() => opened.destroy());
  return opened;
};
const settingsOf = (stateDirectory: string) =>
  readSettings({ BERTH_STATE_DIR: stateDirectory, BERTH_HYPERVISOR: 'simulated' });
const fileOf = async (stateDirectory: string, file = 'installation') =>
  (await readFile(path.join(stateDirectory, file), 'utf8')).trim();

beforeEach(async () => {
  name = await makeDatabase();
  url = inDatabase(server, name);
  owner = open(name);
  directory = await makeDirectory();
});
afterEach(async () => {
  for (const act of cleanUp.splice(0).reverse()) await act();
});

/** Everything that a start could have changed: tables, migrations, the installation, and the roles with their passwords. */
async function fingerprint(database: Knex): Promise<unknown> {
  const rows = async (sql: string) => (await database.raw<{ rows: unknown[] }>(sql)).rows;
  const tables = await rows(`SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`);
  return {
    tables,
    roles: await rows(
      `SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE '%installation_%' ORDER BY 1`,
    ),
    ...(tables.length > 0 && {
      migrations: await rows('SELECT name FROM knex_migrations ORDER BY id'),
      hosts: await rows('SELECT * FROM hosts'),
    }),
  };
}

/** The start is refused with a message that contains each text, and the database is as it was. */
async function expectRefusal(stateDirectory: string, database: Knex, ...texts: string[]): Promise<void> {
  const before = await fingerprint(database);
  const error = await takeDatabase(settingsOf(stateDirectory), database).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InstallationError);
  for (const text of ['Nothing was changed', ...texts]) {
    expect((error as Error).message).toContain(text);
  }
  expect(await fingerprint(database)).toEqual(before);
}

describe('installation: a first start', () => {
  it('installation: records one id in the database and the state directory, and finds it again', async () => {
    const { id, site } = await takeDatabase(settingsOf(directory), owner);
    expect(await fileOf(directory)).toBe(id);
    expect(await fileOf(directory, 'site')).toBe(site);
    expect(await takeDatabase(settingsOf(directory), owner)).toMatchObject({ id, site });
  });

  // Fails without the file "installation.new": the row would belong to an installation that no file names.
  it('installation: a start that was killed before or after the row was written is continued', async () => {
    const { id, site } = await takeDatabase(settingsOf(directory), owner);
    await rm(path.join(directory, 'installation'));
    await writeFile(path.join(directory, 'installation.new'), `${id}\n`);
    expect((await takeDatabase(settingsOf(directory), owner)).id).toBe(id);
    expect(await fileOf(directory)).toBe(id);

    const [other, chosen] = [await makeDirectory(), randomUUID()];
    await writeFile(path.join(other, 'installation.new'), `${chosen}\n`);
    await writeFile(path.join(other, 'site'), `${site}\n`);
    expect((await takeDatabase(settingsOf(other), open(await makeDatabase()))).id).toBe(chosen);
  });

  // Fails without the advisory lock: Knex reports a duplicate table or its own lock.
  it('installation: of several first starts on one database exactly one wins, and the others are refused', async () => {
    const directories = await Promise.all(Array.from({ length: 4 }, makeDirectory));
    const results = await Promise.allSettled(
      directories.map((one) => takeDatabase(settingsOf(one), open(name))),
    );
    const won = results.flatMap((one) => (one.status === 'fulfilled' ? [one.value.id] : []));
    expect(won).toHaveLength(1);
    for (const one of results) {
      if (one.status === 'rejected') expect(one.reason).toBeInstanceOf(InstallationError);
    }
    expect((await createInstallationRecords(owner).find())?.id).toBe(won[0]);
  });

  // Fails without freeing it: Knex's lock is a row, and no process will ever delete it.
  it('installation: a start that was killed in a migration does not block the next one', async () => {
    await takeDatabase(settingsOf(directory), owner);
    await owner('knex_migrations_lock').update({ is_locked: 1 });
    await takeDatabase(settingsOf(directory), owner);
  });
});

describe('installation: a database and a state directory that do not belong together', () => {
  it('installation: an empty database is refused to a state directory that has used another', async () => {
    const { id } = await takeDatabase(settingsOf(directory), owner);
    await expectRefusal(
      directory,
      open(await makeDatabase()),
      'is empty',
      id,
      'DATABASE_URL_FILE',
      'backup',
      'BERTH_STATE_DIR',
    );
  });

  it('installation: an empty database is refused to a state directory of a former version with hosts', async () => {
    await mkdir(path.join(directory, 'hosts', randomUUID()), { recursive: true });
    await expectRefusal(
      directory,
      owner,
      'is empty',
      '1 of its hosts',
      'DATABASE_URL_FILE',
      'BERTH_STATE_DIR',
    );
  });

  it('installation: the database of another installation is refused', async () => {
    const { id } = await takeDatabase(settingsOf(directory), owner);
    const second = open(await makeDatabase());
    const other = await takeDatabase(settingsOf(await makeDirectory()), second);
    await expectRefusal(directory, second, `belongs to installation ${other.id}`, `to installation ${id}`);
  });

  it('installation: a database that is in use is refused to a new state directory', async () => {
    const { id } = await takeDatabase(settingsOf(directory), owner);
    const other = await makeDirectory();
    await expectRefusal(other, owner, `echo ${id} > ${other}/installation`, 'needs another database');
  });

  it('installation: a further node may run an api or a gateway with the copied id, but no worker', async () => {
    const { id, site } = await takeDatabase(settingsOf(directory), owner);
    const other = await makeDirectory();
    for (const one of ['api', 'gateway', 'worker'] as const) {
      await expect(requireInstallation(settingsOf(other), owner, one)).rejects.toThrow('is new');
    }
    await writeFile(path.join(other, 'installation'), `${id}\n`);
    await writeFile(path.join(other, 'site'), site === '0000' ? '1111' : '0000');
    for (const one of ['api', 'gateway'] as const) {
      expect((await requireInstallation(settingsOf(other), owner, one)).id).toBe(id);
    }
    await expect(requireInstallation(settingsOf(other), owner, 'worker')).rejects.toThrow('run an api or');
    await expectRefusal(other, owner, site);
  });

  // Fails if roles are provided before the installation is checked: the running broker's passwords were reset.
  it('installation: a refused start resets no password of a database role', async () => {
    const catalog = loadCatalog(catalogFile, 'test');
    const say = () => undefined;
    const files = await prepareDatabase(settingsOf(directory), catalog, url, say);
    cleanUp.unshift(async () => {
      for (const role of Object.keys(files)) await query(server, `DROP ROLE berth_${name}_${role}`);
    });
    const before = await fingerprint(owner);
    await expect(prepareDatabase(settingsOf(await makeDirectory()), catalog, url, say)).rejects.toThrow(
      'is new',
    );
    expect(await fingerprint(owner)).toEqual(before);
    for (const file of Object.values(files)) {
      expect(await canLogIn((await readFile(file, 'utf8')).trim())).toBe(true);
    }
  });
});

describe('installation: an upgrade from a version that recorded none', () => {
  /** A database of version 0.2.0, with a master key and, perhaps, a running host. */
  async function former(host?: string): Promise<{ masterKey: string }> {
    await owner.migrate.latest({ migrationSource });
    while ((await owner.migrate.currentVersion({ migrationSource })) !== '070-vocabulary') {
      await owner.migrate.down({ migrationSource });
    }
    const masterKey = createMasterKeyText();
    await owner('master_keys').insert({
      id: masterKeyFromText(masterKey).id.toString('hex'),
      state: 'current',
    });
    if (host !== undefined) {
      await owner('slots').insert({ slot: 1 });
      await owner('hosts').insert({
        ...{ id: host, plan_name: 'small', slot: 1, vcpus: 1, memory_mib: 768, disk_gib: 4 },
        ...{ first_port: 20_000, ports: 0, egress: '{}', state: 'parked' },
      });
    }
    return { masterKey };
  }
  const writeKey = (masterKey: string) => writeFile(path.join(directory, 'master.key'), `${masterKey}\n`);

  it('installation: the database is adopted once by the state directory with its master key and hosts', async () => {
    const host = randomUUID();
    const { masterKey } = await former(host);
    await writeKey(masterKey);
    await mkdir(path.join(directory, 'simulated', 'hosts', host), { recursive: true });
    const { id } = await takeDatabase(settingsOf(directory), owner);
    expect(await fileOf(directory)).toBe(id);
    await expectRefusal(await makeDirectory(), owner, id);
  });

  it('installation: without the master key the database is refused', async () => {
    const { masterKey } = await former();
    await expectRefusal(directory, owner, masterKeyFromText(masterKey).id.toString('hex'), 'backup');
    await writeKey(createMasterKeyText());
    await expectRefusal(directory, owner, 'BERTH_MASTER_KEY_FILE');
  });

  it('installation: with a copied master key but none of the hosts the database is refused until confirmed', async () => {
    const { masterKey } = await former(randomUUID());
    await writeKey(masterKey);
    await expectRefusal(directory, owner, 'none of the 1 hosts', `> ${directory}/installation`);
    const confirmed = randomUUID();
    await writeFile(path.join(directory, 'installation'), `${confirmed}\n`);
    expect((await takeDatabase(settingsOf(directory), owner)).id).toBe(confirmed);
  });

  it('installation: a process that runs alone refuses such a database, and says how to upgrade it', async () => {
    await former();
    await expect(requireInstallation(settingsOf(directory), owner, 'gateway')).rejects.toThrow('npm start');
  });
});
