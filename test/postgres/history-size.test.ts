import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import pg from 'pg';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { down, up } from '../../migrations/094-totals.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { createCheckRecords } from '../../src/postgres/host-checks.ts';
import { createOverview } from '../../src/postgres/overview.ts';
import { createPlansInUse } from '../../src/postgres/plans-in-use.ts';
import { createPlatformStore } from '../../src/postgres/platforms.ts';
import { createStore } from '../../src/postgres/store.ts';
import { mergeTotals } from '../../src/postgres/totals.ts';
import {
  binding,
  bindBody,
  hints,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';

/** A broker that has served for long: one living instance, and thousands of rows about what has ended. */
const past = 5_000;
/** What a statement may read about one living instance, with room. */
const mostRead = 50;
const growing = ['instances', 'hosts', 'bindings', 'operations', 'host_checks'];

let broker: TestBroker;
let client: pg.Client;
let database: Knex;
const seen: { sql: string; bindings: unknown[] }[] = [];

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
  const id = randomUUID();
  const created = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
  expect(created.status).toBe(201);
  expect((await broker.ask('put', binding(id, randomUUID())).send(bindBody)).status).toBe(201);
  const columns = async (table: string) =>
    Object.keys((await broker.database<Record<string, unknown>>(table).first()) ?? {});
  /** Copies the row of a table many times, with other values in some columns. */
  const copy = async (table: string, change: Readonly<Record<string, string>>) => {
    const names = await columns(table);
    await broker.database.raw(
      `INSERT INTO ${table} (${names.join(', ')}) SELECT ${names.map((name) => change[name] ?? `one.${name}`).join(', ')}
       FROM (SELECT * FROM ${table} LIMIT 1) AS one, generate_series(1, ${past})`,
    );
  };
  const uuid = 'gen_random_uuid()';
  await copy('operations', { id: uuid, state: `'failed'` });
  await copy('bindings', {
    ...{ id: uuid, osb_id: uuid, serial: uuid, state: `'revoked'`, revoked_at: 'now()' },
    sealed_credentials: 'NULL',
  });
  await copy('hosts', { id: uuid, state: `'destroyed'`, engine_host: 'NULL', engine_port: 'NULL' });
  await copy('instances', { id: uuid, osb_id: uuid, state: `'deleted'` });
  await broker.database.raw(
    `INSERT INTO host_checks (host_id, checked_at, drift) SELECT id, now(), '[]' FROM hosts WHERE state = 'destroyed'`,
  );
  await broker.database.raw('VACUUM ANALYZE');
  database = openDatabase(broker.connectionString);
  database.on('query', ({ sql, bindings }: { sql: string; bindings: unknown[] }) =>
    seen.push({ sql, bindings }),
  );
  client = new pg.Client({ connectionString: broker.connectionString });
  await client.connect();
});
afterAll(async () => {
  await client.end();
  await database.destroy();
  await broker.stop();
});

interface Plan {
  'Relation Name'?: string;
  'Actual Rows': number;
  'Actual Loops': number;
  'Rows Removed by Filter'?: number;
  Plans?: Plan[];
}

/** Rows of growing tables that a plan has read. */
function rowsRead(plan: Plan): number {
  const own = growing.includes(plan['Relation Name'] ?? '')
    ? (plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0)) * plan['Actual Loops']
    : 0;
  return (plan.Plans ?? []).reduce((sum, child) => sum + rowsRead(child), own);
}

const store = () => createStore(database, { first: 20_000, size: 20, count: 50, restSeconds: 0 });

// Fails without the totals and the index of living instances: as many rows were read as there ever were.
it.each<[string, () => Promise<unknown>]>([
  ['counts of health and metrics', () => createOverview(database).counts()],
  ['the list of hosts', () => createOverview(database).hosts()],
  ['the list of platforms', () => createPlatformStore(database).list()],
  ['the plans in use', () => createPlansInUse(database).list()],
  ['the search for an operation', () => store().records.leaseOperation('worker', 1_000)],
  ['the time of the next operation', () => store().records.nextDueMs()],
  ['the living hosts', () => store().records.livingHosts()],
  ['the disputed hosts', () => store().records.disputedHosts()],
  ['the pool', () => store().records.poolHosts()],
  ['the search for failed deletes', () => store().records.instancesWithFailedDelete(1_000)],
  ['the search for expired instances', () => store().records.instancesDueToExpire()],
  ['the free slots', () => store().records.freeSlots()],
  ['the memory of nodes', () => store().records.nodeMemory()],
  ['the hosts to check', () => createCheckRecords(database).checkable()],
])('history: %s costs the same, however many rows are about what has ended', async (_, ask) => {
  seen.length = 0;
  await ask();
  expect(seen.length).toBeGreaterThan(0);
  for (const { sql, bindings } of [...seen]) {
    if (!/\b(select|update|insert|delete)\b/i.test(sql)) continue;
    await client.query('BEGIN');
    const { rows } = await client.query<{ 'QUERY PLAN': { Plan: Plan }[] }>(
      `EXPLAIN (ANALYZE, FORMAT JSON) ${sql}`,
      bindings,
    );
    await client.query('ROLLBACK');
    const read = rowsRead(rows[0]?.['QUERY PLAN'][0]?.Plan as Plan);
    expect([sql, read <= mostRead]).toEqual([sql, true]);
  }
});

const byName = (a: object, b: object) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
/** What metrics show of that which has ended, in a fixed order. */
async function ended() {
  const { instances, bindings, operations, made } = await createOverview(database).counts();
  return {
    instances: instances.filter(({ state }) => state === 'deleted'),
    bindings: bindings.filter(({ state }) => state === 'revoked'),
    operations: operations
      .filter(({ state }) => state !== 'in progress')
      .map(({ kind, state, count }) => ({ kind, state, count }))
      .sort(byName),
    made: [...made].sort(byName),
  };
}

// Fails without the triggers of migration 094.
it('totals: count what ends, and are the same after two workers have merged the rows', async () => {
  const id = randomUUID();
  const before = await ended();
  await broker
    .ask('put', `${instance(id)}?accepts_incomplete=true`)
    .send(provisionBody)
    .expect(201);
  await broker.ask('put', binding(id, randomUUID())).send(bindBody).expect(201);
  await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`).expect(200);
  const after = await ended();
  const sum = (rows: readonly { count: number }[]) => rows.reduce((total, { count }) => total + count, 0);
  for (const [subject, more] of [
    ...[
      ['instances', 1] as const,
      ['bindings', 1] as const,
      ['operations', 2] as const,
      ['made', 1] as const,
    ],
  ]) {
    expect([subject, sum(after[subject]) - sum(before[subject])]).toEqual([subject, more]);
  }
  expect(after.operations).toContainEqual({ kind: 'deprovision', state: 'succeeded', count: 1 });

  // More than the worker leaves unmerged, added while two workers merge, with their database role.
  const worker = openDatabase(broker.urls.worker);
  const rows = () => broker.database('totals').count<{ count: string }[]>('* as count').first();
  try {
    const revoke = () =>
      broker.database.raw(
        `INSERT INTO totals SELECT 'bindings', '', 'revoked', 1, 0 FROM generate_series(1, 600)`,
      );
    await revoke();
    await Promise.all([mergeTotals(worker), revoke(), mergeTotals(worker), revoke(), mergeTotals(worker)]);
    await mergeTotals(worker);
  } finally {
    await worker.destroy();
  }
  expect(Number((await rows())?.count)).toBeLessThanOrEqual(500);
  expect(await ended()).toEqual({
    ...after,
    bindings: [{ ...after.bindings[0], count: sum(after.bindings) + 1_800 }],
  });
});

it('totals: an upgrade counts what has ended before', async () => {
  await down(broker.database);
  await up(broker.database);
  const { rows } = await broker.database.raw<{ rows: { kind: string; state: string; count: number }[] }>(
    `SELECT kind, state, count(*)::integer AS count FROM operations WHERE state <> 'in progress' GROUP BY kind, state`,
  );
  expect(await ended()).toEqual({
    instances: [expect.objectContaining({ state: 'deleted', count: past + 1 })],
    bindings: [expect.objectContaining({ state: 'revoked', count: past + 1 })],
    operations: rows.sort(byName),
    made: [{ from: expect.any(String) as string, plan: 'small', count: past + 2 }],
  });
});
