import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { channels } from '../../src/postgres/channels.ts';
import { createCertificateRequester } from '../../src/postgres/certificate-requests.ts';
import {
  applyGrants,
  canLogIn,
  refuseOwner,
  roleNames,
  urlFor,
} from '../../src/postgres/server/database-roles.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { type DatabaseRole, databaseRoles, grants } from '../../src/postgres/server/grants.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createLiveBindingsSource } from '../../src/postgres/live-bindings.ts';
import {
  bindBody,
  binding,
  hints,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import { createTestDatabase } from '../support/postgres.ts';

let broker: TestBroker;
const as: Partial<Record<DatabaseRole, Knex>> = {};
const osbId = randomUUID();

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
  for (const role of databaseRoles) as[role] = openDatabase(broker.urls[role], { maxConnections: 1 });
  await broker
    .ask('put', `${instance(osbId)}?accepts_incomplete=true`)
    .send(provisionBody)
    .expect(201);
  await broker.ask('put', binding(osbId, 'b')).send(bindBody).expect(201);
});
afterAll(async () => {
  for (const database of Object.values(as)) await database.destroy();
  await broker.stop();
});

const run = async (role: DatabaseRole, text: string) => {
  const database = as[role];
  if (database === undefined) throw new Error(`no connection as ${role}`);
  return (await database.raw<{ rows: Record<string, unknown>[] }>(text)).rows;
};
const refusedBy = (role: DatabaseRole, text: string) =>
  expect(run(role, text), `${role}: ${text}`).rejects.toThrow(/permission denied|must be owner/);

it('grants: list every table, and no other', async () => {
  const tables = await broker.database.raw<{ rows: { name: string }[] }>(
    `SELECT relname AS name FROM pg_class WHERE relnamespace = current_schema()::regnamespace
       AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relname NOT LIKE 'knex\\_%' ORDER BY 1`,
  );
  expect(tables.rows.map(({ name }) => name)).toEqual(Object.keys(grants).sort());
});

it('grants: PUBLIC has no right on a table, a sequence or a SECURITY DEFINER function', async () => {
  const { rows } = await broker.database.raw<{ rows: unknown[] }>(
    `SELECT relname FROM pg_class, aclexplode(relacl) AS acl
     WHERE relnamespace = current_schema()::regnamespace AND acl.grantee = 0
     UNION ALL
     SELECT proname FROM pg_proc LEFT JOIN LATERAL aclexplode(proacl) AS acl ON true
     WHERE pronamespace = current_schema()::regnamespace AND prosecdef AND (proacl IS NULL OR acl.grantee = 0)`,
  );
  expect(rows).toEqual([]);
});

it.each([
  ['api', 'DELETE FROM bindings'],
  ['api', 'DELETE FROM instances'],
  ['api', `UPDATE hosts SET engine_host = '127.0.0.1'`],
  ['api', `UPDATE instances SET tenant_id = gen_random_uuid()`],
  ['api', `UPDATE bindings SET certificate = ''`],
  ['api', `UPDATE bindings SET tenant_id = gen_random_uuid()`],
  ['gateway', 'SELECT sealed_credentials FROM bindings'],
  ['gateway', 'SELECT certificate FROM bindings'],
  ['gateway', 'SELECT * FROM bindings'],
  ['gateway', 'SELECT sealed_key FROM certificate_authorities'],
  ['gateway', `UPDATE bindings SET state = 'live'`],
  ['gateway', `UPDATE hosts SET engine_host = '127.0.0.1'`],
  ['gateway', `UPDATE certificate_requests SET certificate = ''`],
  [
    'gateway',
    `INSERT INTO certificate_requests (id, request, certificate) VALUES (gen_random_uuid(), '', '')`,
  ],
  ['gateway', 'SELECT FROM instances'],
  ['gateway', 'SELECT FROM tenants'],
  ['gateway', 'SELECT FROM platform_passwords'],
  ['gateway', 'SELECT FROM operations'],
  ['worker', 'SELECT sealed_credentials FROM bindings'],
  ['worker', 'SELECT * FROM bindings'],
  ['worker', 'UPDATE bindings SET sealed_credentials = NULL RETURNING sealed_credentials'],
  ['worker', `UPDATE bindings SET serial = '1'`],
  ['worker', `INSERT INTO bindings (id) VALUES (gen_random_uuid())`],
  ['worker', 'SELECT FROM certificate_authorities'],
  ['worker', 'SELECT FROM platform_passwords'],
  ['worker', `UPDATE hosts SET tenant_id = gen_random_uuid()`],
  ['worker', `UPDATE instances SET tenant_id = gen_random_uuid()`],
  ['worker', 'DELETE FROM hosts'],
] as const)('database roles: the %s may not: %s', (role, text) => refusedBy(role, text));

it.each(databaseRoles)(
  'database roles: the %s can neither change the schema nor become another role',
  async (role) => {
    const { rows } = await broker.database.raw<{ rows: { owner: string }[] }>('SELECT current_user AS owner');
    const owner = rows[0]?.owner ?? '';
    await expect(run(role, 'CREATE TABLE mine ()')).rejects.toThrow('permission denied');
    await expect(run(role, 'CREATE TEMPORARY TABLE bindings ()')).rejects.toThrow('permission denied');
    await expect(run(role, `SET ROLE ${owner}`)).rejects.toThrow('permission denied');
    await expect(run(role, 'RESET ROLE; DROP TABLE bindings CASCADE')).rejects.toThrow('must be owner');
    await expect(run(role, 'ALTER TABLE hosts DISABLE TRIGGER ALL')).rejects.toThrow('must be owner');
    await expect(run(role, 'TRUNCATE bindings CASCADE')).rejects.toThrow('permission denied');
    await expect(run(role, 'SELECT rolpassword FROM pg_authid')).rejects.toThrow('permission denied');
    await expect(run(role, 'SELECT FROM knex_migrations')).rejects.toThrow('permission denied');
  },
);

it('database roles: the gateway does all its work with its rights', async () => {
  const source = createLiveBindingsSource({ connectionString: broker.urls.gateway, connections: () => 3 });
  const changed: string[] = [];
  await source.open({ changed: (id) => changed.push(id), lost: () => undefined });
  await source.takeLease(60_000);
  await source.renewLease(60_000);
  const { rows } = await broker.database.raw<{ rows: { id: string }[] }>(
    `SELECT id FROM bindings WHERE state = 'live'`,
  );
  const [live] = await source.read(rows.map(({ id }) => id));
  if (live === undefined) throw new Error('the binding is not live');
  expect(live.engine).toBeDefined();
  expect(await source.readBySerial([live.serial])).toEqual([live]);
  const unbound = broker.ask('delete', `${binding(osbId, 'b')}?${hints}`).then(({ status }) => status);
  await expect.poll(() => changed).toContain(live.bindingId);
  expect(await source.read([live.bindingId])).toEqual([]);
  await source.acknowledge([live.bindingId]);
  await source.acknowledge([live.bindingId]);
  expect(await unbound).toBe(200);
  await source.releaseLease();
  await source.close();
});

it('database roles: the gateway can request a certificate, and the api can answer', async () => {
  const gateway = as.gateway;
  if (gateway === undefined) throw new Error('no connection');
  const listener = await startListener({
    connectionString: broker.urls.gateway,
    listenTo: [channels.certificateRequests],
    onLost: () => undefined,
  });
  try {
    const asked = createCertificateRequester(gateway, listener).request('a request', 10_000);
    await expect
      .poll(() =>
        run(
          'api',
          `UPDATE certificate_requests SET certificate = 'signed', ca = gen_random_uuid() RETURNING id`,
        ),
      )
      .toHaveLength(1);
    expect((await asked).chain).toBe('signed');
  } finally {
    await listener.stop();
  }
});

describe('database roles', () => {
  it('database roles: those of one database can not connect to another', async () => {
    const other = await createTestDatabase(inject('postgres'));
    try {
      await other.roleUrls();
      const otherName = new URL(other.connectionString.replace('@/', '@localhost/')).pathname;
      const foreign = broker.urls.api.replace(/\/test_\w+/, otherName);
      expect(await canLogIn(broker.urls.api)).toBe(true);
      expect(await canLogIn(foreign)).toBe(false);
    } finally {
      await other.drop();
    }
  });

  it('database roles: lose a right that is not in grants.ts any more', async () => {
    const owner = broker.database;
    const names = await roleNames(owner);
    const may = () => run('worker', 'SELECT sealed_key FROM certificate_authorities');
    await owner.raw(`GRANT SELECT ON certificate_authorities TO ${names.worker}`);
    await owner.raw(`GRANT SELECT (sealed_credentials) ON bindings TO ${names.gateway}`);
    await may();
    await applyGrants(owner, names);
    await expect(may()).rejects.toThrow('permission denied');
    await refusedBy('gateway', 'SELECT sealed_credentials FROM bindings');
  });

  it('database roles: are accepted, and the owner of the tables is refused', async () => {
    await expect(refuseOwner(broker.database, 'api')).rejects.toThrow('BERTH_API_DATABASE_URL_FILE');
    for (const role of databaseRoles) {
      const database = as[role];
      if (database !== undefined) await refuseOwner(database, role);
    }
  });
});

it('urlFor: keeps server, database and options, and drops the password of the owner', () => {
  const url = urlFor(
    'postgresql://owner:se%40cret@db.example.org:5433/berth?sslmode=require&user=o&password=p',
    'r',
    'x',
  );
  expect(url).toBe('postgresql://r:x@db.example.org:5433/berth?sslmode=require');
  const socket = urlFor('postgresql://owner:secret@/postgres?host=%2Frun%2Fberth', 'r', 'x');
  expect(socket).toBe('postgresql://r:x@/postgres?host=%2Frun%2Fberth');
  const { user, password, host, database } = new pg.Client({ connectionString: socket });
  expect([user, password, host, database]).toEqual(['r', 'x', '/run/berth', 'postgres']);
  expect(urlFor('postgres://db/berth', 'r', 'x')).toBe('postgres://r:x@db/berth');
});
