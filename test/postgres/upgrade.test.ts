import { randomBytes, randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { migrationSource } from '../../migrations/index.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { inDatabase, query } from '../support/postgres.ts';

/** The database of an operator who upgrades from the version before 070-vocabulary, with a row in every old state. */
const server = inject('postgres');
let name: string;
let database: Knex;

const tablesBefore = [
  ...['platforms', 'tenants', 'instances', 'unseen_deletes', 'slots', 'hosts', 'bindings', 'operations'],
  ...[
    'authorities',
    'gateways',
    'workers',
    'certificate_requests',
    'revocation_acknowledgements',
    'quota_usage',
  ],
  ...['platform_passwords', 'operation_kinds', 'audit', 'master_keys', 'presences', 'host_checks'],
  ...['power_requests', 'keepers'],
];
const renamedTables: Readonly<Record<string, string>> = {
  unseen_deletes: 'early_deletes',
  authorities: 'certificate_authorities',
  keepers: 'leadership_leases',
};

type Row = Record<string, unknown>;
type Tables = Readonly<Record<string, readonly Row[]>>;

/** All rows of these tables, in an order that does not depend on the names of columns. */
async function rowsOf(tables: readonly string[]): Promise<Tables> {
  const entries: [string, Row[]][] = [];
  for (const table of tables) {
    const rows: Row[] = await database<Row>(table).orderByRaw('1');
    entries.push([table, rows]);
  }
  return Object.fromEntries(entries);
}

/** Names and definitions of all that a migration makes. */
async function schema(): Promise<readonly string[]> {
  const { rows } = await database.raw<{ rows: { line: string }[] }>(`
    SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' ||
      coalesce(column_default, '') AS line FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
      FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'function ' || pg_get_functiondef(oid) || coalesce(proacl::text, '') FROM pg_proc
      WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' AND prolang <> 13
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
    ORDER BY 1`);
  return rows.map(({ line }) => line);
}

/** The migrations whose names sort before this one. Later ones are not under test here. */
const before = (name: string): typeof migrationSource => ({
  ...migrationSource,
  getMigrations: async (extensions) =>
    (await migrationSource.getMigrations(extensions)).filter((one) => one.name < name),
});
const before070 = before('070');
const with070 = before('071');

const ids = {
  platform: randomUUID(),
  tenant: randomUUID(),
  clientCa: randomUUID(),
  serverCa: randomUUID(),
  binding: randomUUID(),
};

/** Hosts by their old state and power; those in the pool have no instance. */
const hosts = [
  { state: 'planned', power: 'on' },
  { state: 'running', power: 'on' },
  { state: 'running', power: 'paused' },
  { state: 'running', power: 'suspended' },
  { state: 'destroyed', power: 'on' },
  { state: 'pooling', power: 'on' },
  { state: 'pooled', power: 'on' },
].map((host) => ({
  ...host,
  id: randomUUID(),
  instance: host.state.startsWith('pool') ? null : randomUUID(),
}));

async function insertOldRows(): Promise<void> {
  await database('platforms').insert({ id: ids.platform, name: 'cloudfoundry' });
  await database('tenants').insert({ id: ids.tenant, platform_id: ids.platform, key: 'org-1' });
  await database('unseen_deletes').insert({ platform_id: ids.platform, osb_id: 'never-seen' });
  await database('authorities').insert([
    { id: ids.clientCa, name: 'client', state: 'current', certificate: 'c', sealed_key: Buffer.from('k') },
    { id: ids.serverCa, name: 'server', state: 'current', certificate: 's', sealed_key: Buffer.from('k') },
    { name: 'server', state: 'next', certificate: 'n', sealed_key: Buffer.from('k'), cross_certificate: 'x' },
    { name: 'client', state: 'retiring', certificate: 'r', sealed_key: null },
    { name: 'client', state: 'retired', certificate: 'o', sealed_key: null },
  ]);
  for (const [index, host] of hosts.entries()) {
    const slot = index + 1;
    await database('slots').insert({ slot, host_id: host.state === 'destroyed' ? null : host.id });
    if (host.instance !== null) {
      await database('instances').insert({
        ...{
          id: host.instance,
          platform_id: ids.platform,
          tenant_id: ids.tenant,
          osb_id: `instance-${slot}`,
        },
        ...{ service_id: 's', plan_id: 'p', parameters: {}, context: {}, state: 'ready' },
      });
    }
    await database('hosts').insert({
      ...{ id: host.id, instance_id: host.instance, tenant_id: host.instance === null ? null : ids.tenant },
      ...{ plan_name: 'small', slot, vcpus: 1, memory_mib: 768, disk_gib: 4, egress: '{}' },
      ...{ first_port: 20_000 + slot * 20, ports: 10, state: host.state, power: host.power },
      started_from: host.state === 'running' ? 'template' : null,
      made_from: host.state === 'running' ? 'pool' : null,
    });
    await database('host_checks').insert({
      host_id: host.id,
      checked_at: new Date(),
      alterations: JSON.stringify(
        host.power === 'paused' ? [{ part: 'firewall', detail: 'a rule is missing' }] : [],
      ),
    });
    if (host.state === 'running') {
      await database('power_requests').insert({ host_id: host.id, power: host.power });
    }
  }
  const running = hosts.find(({ state }) => state === 'running');
  await database('bindings').insert({
    ...{ id: ids.binding, osb_id: 'b', instance_id: running?.instance, tenant_id: ids.tenant, serial: '1a' },
    ...{ certificate: 'c', sealed_credentials: Buffer.from('x'), parameters: {}, state: 'live' },
    ...{ created_at: new Date(), expires_at: new Date(Date.now() + 86_400_000) },
    ...{ client_authority: ids.clientCa, server_authority: ids.serverCa },
  });
  await database('operations').insert({
    ...{ id: randomUUID(), kind: 'provision', instance_id: hosts[0]?.instance, state: 'in progress' },
    ...{ step: 'prepare', description: '', deadline: new Date() },
  });
  await database('certificate_requests').insert([
    { id: randomUUID(), request: 'waits' },
    { id: randomUUID(), request: 'answered', certificate: 'c', authority: ids.serverCa },
  ]);
  await database('keepers').insert({ name: 'pool', owner: randomUUID(), lease_until: new Date() });
  await database('presences').insert([
    { id: randomUUID(), role: 'api', holds: ['a', 'b'], seen_at: new Date() },
    { id: randomUUID(), role: 'gateway', holds: [], seen_at: new Date() },
  ]);
}

const renamedColumns: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  hosts: { made_from: 'first_started_from' },
  host_checks: { alterations: 'drift' },
  bindings: { client_authority: 'client_ca', server_authority: 'server_ca' },
  certificate_requests: { authority: 'ca' },
  keepers: { owner: 'holder' },
  presences: { role: 'process', holds: 'announced' },
};
const renamedStates: Readonly<Record<string, string>> = {
  pooling: 'parking',
  pooled: 'parked',
  planned: 'creating',
};

/** What each row must be after 070. */
function renamed(table: string, row: Row): Row {
  const entries = Object.entries(row).map(([column, value]) => {
    const hasPower = table === 'hosts' || table === 'power_requests';
    if (table === 'hosts' && column === 'state') return [column, renamedStates[value as string] ?? value];
    if (hasPower && column === 'power') return [column, value === 'on' ? 'running' : value];
    return [renamedColumns[table]?.[column] ?? column, value];
  });
  return Object.fromEntries(entries) as Row;
}

const lastAudited = async () => (await database<Row>('audit').orderBy('id', 'desc').first())?.['action'];
const give = (state: string, host: string | undefined) =>
  database('hosts')
    .where({ id: host })
    .update({ state, tenant_id: ids.tenant, instance_id: hosts[4]?.instance });

beforeEach(async () => {
  name = `upgrade_${randomBytes(4).toString('hex')}`;
  await query(server, `CREATE DATABASE ${name}`);
  database = openDatabase(inDatabase(server, name), { maxConnections: 2 });
  await database.migrate.latest({ migrationSource: before070 });
  await insertOldRows();
});
afterEach(async () => {
  await database.destroy();
  await query(server, `DROP DATABASE ${name} WITH (FORCE)`);
});

it('070-vocabulary: renames every old state, and changes nothing else of a row', async () => {
  const rows = await rowsOf(tablesBefore);
  expect(Object.keys(rows).sort()).toEqual(
    (
      await database.raw<{ rows: { tablename: string }[] }>(
        `SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'knex%' ORDER BY 1`,
      )
    ).rows.map(({ tablename }) => tablename),
  );
  await database.migrate.latest({ migrationSource: with070 });
  const after = await rowsOf(tablesBefore.map((table) => renamedTables[table] ?? table));
  for (const table of tablesBefore) {
    expect(after[renamedTables[table] ?? table], table).toEqual(
      rows[table]?.map((row) => renamed(table, row)),
    );
  }
  expect(after['hosts']?.map(({ state, power }) => `${String(state)} ${String(power)}`).sort()).toEqual([
    'creating running',
    'destroyed running',
    'parked running',
    'parking running',
    'running paused',
    'running running',
    'running suspended',
  ]);
});

it('070-vocabulary: leaves no old word in the name of a column, constraint, index, trigger or function', async () => {
  const old = /keeper|unseen|alteration|pooled|pooling|nobody|planned|\bauthorit|_authority|made_from|'on'/;
  const withOldWords = async () =>
    (await schema()).filter((line) => old.test(line.replace('"authorities"', '')));
  expect((await withOldWords()).length).toBeGreaterThan(20);
  await database.migrate.latest({ migrationSource: with070 });
  expect(await withOldWords()).toEqual([]);
});

it('070-vocabulary: the rules on owners, states and CAs apply under the new names', async () => {
  await database.migrate.latest({ migrationSource: with070 });
  const parked = hosts.find(({ state }) => state === 'pooled')?.id;
  const parking = hosts.find(({ state }) => state === 'pooling')?.id;
  await expect(give('creating', parking)).rejects.toThrow('not parked in the pool');
  await expect(give('planned', parked)).rejects.toThrow('hosts_state_check');
  await expect(give('parked', parked)).rejects.toThrow('hosts_parked_has_no_owner');
  expect(await give('creating', parked)).toBe(1);
  await expect(database('hosts').where({ id: parked }).update({ power: 'on' })).rejects.toThrow(
    'hosts_power_check',
  );
  const destroyed = { state: 'destroyed' };
  await expect(database('hosts').where(destroyed).update({ state: 'running' })).rejects.toThrow(
    'never used again',
  );
  await database('certificate_authorities').where({ state: 'retiring' }).update({ state: 'retired' });
  expect(await lastAudited()).toBe('ca-retired');
});

it('070-vocabulary: down() restores every row and the whole schema', async () => {
  const [rows, made] = [await rowsOf(tablesBefore), await schema()];
  await database.migrate.latest({ migrationSource: with070 });
  const upgraded = await schema();
  await database.migrate.rollback({ migrationSource: with070 });
  expect(await schema()).toEqual(made);
  expect(await rowsOf(tablesBefore)).toEqual(rows);
  expect(await give('planned', hosts.find(({ state }) => state === 'pooled')?.id)).toBe(1);
  await database('authorities').where({ state: 'retiring' }).update({ state: 'retired' });
  expect(await lastAudited()).toBe('authority-retired');
  await database.migrate.latest({ migrationSource: with070 });
  expect(await schema()).toEqual(upgraded);
});
