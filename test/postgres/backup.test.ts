import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { Knex } from 'knex';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { migrationSource } from '../../migrations/index.ts';
import { readBackupHeader } from '../../src/postgres/backup/backup-file.ts';
import { restoreBackup } from '../../src/postgres/backup/restore-backup.ts';
import { writeBackup } from '../../src/postgres/backup/write-backup.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createInstallationRecords } from '../../src/postgres/installation.ts';
import { urlFor } from '../../src/postgres/server/database-roles.ts';
import {
  bindBody,
  binding,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { inDatabase, query } from '../support/postgres.ts';

/** A broker with instances and bindings, and an owner without the rights of a superuser, as of an external Postgres. */
const server = inject('postgres');
const name = `backup_${randomBytes(4).toString('hex')}`;
let broker: TestBroker;
let folder: string;
let file: string;
let target: Knex;
let admin: Knex;

beforeAll(async () => {
  broker = await makeTestBroker(server);
  broker.startWorker();
  await createInstallationRecords(broker.database).record({ id: randomUUID(), site: '12ab' });
  for (const id of ['one', 'two']) {
    const created = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
    expect(created.status).toBe(201);
    expect((await broker.ask('put', binding(id, `${id}-binding`)).send(bindBody)).status).toBe(201);
  }
  folder = await mkdtemp(path.join(tmpdir(), 'berth-backup-'));
  file = path.join(folder, 'backup');
  await writeBackup(broker.database, file);
  await query(server, `CREATE ROLE ${name} LOGIN CREATEROLE PASSWORD 'secret'`);
  await query(server, `CREATE DATABASE ${name} OWNER ${name}`);
  target = openDatabase(urlFor(inDatabase(server, name), name, 'secret'), { maxConnections: 1 });
  admin = openDatabase(server, { maxConnections: 1 });
});
afterAll(async () => {
  await Promise.all([target.destroy(), admin.destroy(), broker.stop()]);
  await query(server, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  await query(server, `DROP ROLE IF EXISTS ${name}`);
  await rm(folder, { recursive: true });
});
const restore = async (from = file) => restoreBackup(target, from, await readBackupHeader(from));

/** All tables, constraints, triggers and rows, except what a restore is to change. */
async function contentOf(database: Knex): Promise<unknown> {
  const { rows: objects } = await database.raw<{ rows: { line: string }[] }>(
    `SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type AS line
       FROM information_schema.columns WHERE table_schema = 'public'
     UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || pg_get_constraintdef(oid)
       FROM pg_constraint WHERE connamespace = 'public'::regnamespace
     UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
     UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`,
  );
  const { rows: tables } = await database.raw<{ rows: { name: string }[] }>(
    `SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'knex%' ORDER BY 1`,
  );
  const content: Record<string, unknown> = {};
  for (const { name: table } of tables) {
    const { rows } = await database.raw<{ rows: { row: unknown }[] }>(
      `SELECT to_jsonb(${table}) - 'history' AS row FROM ${table} ORDER BY to_jsonb(${table})::text`,
    );
    content[table] = rows.map(({ row }) => row);
  }
  return { objects, content };
}

// The later tests begin with what this one has restored.
it('backup: is whole, private, and restored exactly by an owner without superuser rights', async () => {
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  const { tables, rows } = await restore();
  expect(tables).toBeGreaterThan(15);
  expect(rows).toBeGreaterThan(10);
  expect(await contentOf(target)).toEqual(await contentOf(broker.database));
  // Numbers continue after those that are in use.
  await target('audit').insert({ actor: 'berth', action: 'test', outcome: 'succeeded' });
});

// Fails without the change of the history: a database that is restored under its own name looks like the one before.
it('backup: a restored database has a history that no worker has confirmed', async () => {
  expect(await target('installation').first('history')).toEqual({ history: 'restored from a backup' });
});

it('backup: replaces what the database had, also tables of a former version', async () => {
  await target.migrate.down({ migrationSource });
  await target('platforms').insert({ id: randomUUID(), name: 'added-later' });
  await restore();
  expect(await contentOf(target)).toEqual(await contentOf(broker.database));
});

it('restore: a database that other sessions use is refused, and left as it was', async () => {
  const before = await contentOf(target);
  const other = openDatabase(inDatabase(server, name), { maxConnections: 1 });
  await other.raw('SELECT');
  await expect(restore()).rejects.toThrow('in use');
  await other.destroy();
  expect(await contentOf(target)).toEqual(before);
});

type Spoil = (lines: string) => Buffer | string;
const gzipped =
  (change: (lines: string) => string): Spoil =>
  (lines) =>
    gzipSync(change(lines));

it('restore: a damaged, foreign or newer file is refused with the reason, and the database is as it was', async () => {
  const lines = gunzipSync(await readFile(file)).toString();
  const defects: readonly (readonly [string, Spoil])[] = [
    ["can't be read as a backup", () => 'rows'],
    ["can't be read as a backup", () => gzipSync(lines).subarray(0, 2_000)],
    ['is not a backup of Berth', gzipped(() => '{"format":"other"}\n')],
    ['newer version', gzipped((all) => all.replace('"version":1', '"version":2'))],
    ['its end is missing', gzipped((all) => all.replace(/\{"kind":"end".*\n/, ''))],
    ['of 10 rows', gzipped((all) => all.replace(/"end","rows":\d+/, '"end","rows":10'))],
    ['which this one lacks', gzipped((all) => all.replace('"001-first"', '"001-first","999-next"'))],
    ['tables', gzipped((all) => all.replace(/\{"kind":"table","name":"workers".*\n(\[.*\n)*/, ''))],
    ['invalid input', gzipped((all) => all.replace(/,"20\d\d-\d\d-/, ',"unknown'))],
  ];
  const before = await contentOf(target);
  const bad = path.join(folder, 'bad');
  for (const [message, spoil] of defects) {
    await writeFile(bad, spoil(lines));
    await expect(restore(bad), message).rejects.toThrow(message);
  }
  await rm(bad);
  expect(await contentOf(target)).toEqual(before);
});

// Fails without the one transaction.
it('restore: one that is interrupted leaves the database as it was', async () => {
  const before = await contentOf(target);
  const restoring = expect(restore()).rejects.toThrow();
  await eventually(
    'its session has been ended',
    async () => {
      const { rows } = await admin.raw<{ rows: unknown[] }>(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ? AND query LIKE 'INSERT INTO%'`,
        [name],
      );
      return rows.length > 0;
    },
    { everyMs: 1 },
  );
  await restoring;
  expect(await contentOf(target)).toEqual(before);
});

it('backup: does not overwrite a file, and leaves none if it fails', async () => {
  await expect(writeBackup(broker.database, file)).rejects.toThrow('name another file');
  await target.raw('TRUNCATE installation');
  await expect(writeBackup(target, path.join(folder, 'none'))).rejects.toThrow('no installation');
  expect(await readdir(folder)).toEqual(['backup']);
});
