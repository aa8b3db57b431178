import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { migrationSource } from '../../migrations/index.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { instance, makeTestBroker, provisionBody, type TestBroker } from '../support/broker.ts';
import { createTestDatabase } from '../support/postgres.ts';

let broker: TestBroker;
const first = randomUUID();
const second = randomUUID();

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
  for (const [id, org] of [
    [first, 'org-1'],
    [second, 'org-2'],
  ] as const) {
    const answer = await broker
      .ask('put', `${instance(id)}?accepts_incomplete=true`)
      .send({ ...provisionBody, organization_guid: org });
    expect(answer.status).toBe(201);
  }
});
afterAll(() => broker.stop());

const sql = (text: string, ...values: (string | number)[]) => broker.database.raw(text, values);
const ofInstance = (id: string) => `(SELECT id FROM instances WHERE osb_id = '${id}')`;
const tenantOf = (id: string) => `(SELECT tenant_id FROM instances WHERE osb_id = '${id}')`;

it('schema: the owner of the tables can not change the tenant of a host', async () => {
  const where = `WHERE instance_id = ${ofInstance(first)}`;
  await expect(sql(`UPDATE hosts SET tenant_id = ${tenantOf(second)} ${where}`)).rejects.toThrow();
  await expect(
    sql(`UPDATE hosts SET tenant_id = ${tenantOf(second)}, instance_id = ${ofInstance(second)} ${where}`),
  ).rejects.toThrow('never given to another');
  await expect(
    sql(`UPDATE instances SET tenant_id = ${tenantOf(second)} WHERE osb_id = '${first}'`),
  ).rejects.toThrow();
});

/** A destroyed host of the first tenant. */
const addDestroyedHost = (id: string, slot: number) =>
  sql(
    `INSERT INTO hosts (id, instance_id, tenant_id, plan_name, slot, vcpus, memory_mib, disk_gib, first_port, ports, port_block, egress, state)
     SELECT ?, id, tenant_id, 'small', ?, 1, 768, 4, 29000, 0, 0, '{}', 'destroyed' FROM instances WHERE osb_id = ?`,
    id,
    slot,
    first,
  );

// Fails for the api, which may claim parked hosts, if the triggers on hosts are disabled.
it.each(['api', 'gateway', 'worker'] as const)(
  'schema: the database role %s can not change the tenant of a host, a destroyed one included',
  async (role) => {
    const gone = randomUUID();
    await addDestroyedHost(gone, 39);
    const row = (table: string, where: object) =>
      broker.database<{ id: string; tenant_id: string; instance_id: string }>(table).where(where).first();
    const [mine, other] = [
      await row('instances', { osb_id: first }),
      await row('instances', { osb_id: second }),
    ];
    const living = await row('hosts', { instance_id: mine?.id, state: 'running' });
    if (mine === undefined || other === undefined || living === undefined)
      throw new Error('the rows to change are missing');
    const before = await broker.database('hosts').orderBy('id');
    const as = openDatabase(broker.urls[role], { maxConnections: 1 });
    try {
      for (const host of [living.id, gone]) {
        for (const change of [
          `tenant_id = '${other.tenant_id}', instance_id = '${other.id}'`,
          `tenant_id = '${other.tenant_id}', instance_id = '${other.id}', state = 'creating'`,
          `tenant_id = NULL, instance_id = NULL, state = 'parked'`,
        ]) {
          await expect(as.raw(`UPDATE hosts SET ${change} WHERE id = '${host}'`), change).rejects.toThrow();
        }
        await expect(as.raw(`DELETE FROM hosts WHERE id = '${host}'`)).rejects.toThrow();
      }
      await expect(as.raw(`UPDATE hosts SET state = 'running' WHERE id = '${gone}'`)).rejects.toThrow();
      await expect(
        as.raw(`UPDATE instances SET tenant_id = '${other.tenant_id}' WHERE id = '${mine.id}'`),
      ).rejects.toThrow();
      await expect(as.raw('ALTER TABLE hosts DISABLE TRIGGER ALL')).rejects.toThrow('must be owner');
      expect(await broker.database('hosts').orderBy('id')).toEqual(before);
    } finally {
      await as.destroy();
      await broker.database('hosts').where({ id: gone }).delete();
    }
  },
);

it('schema: a parked host gets an owner once, and never returns to the pool', async () => {
  const insert = async (slot: number, state: string) => {
    const id = randomUUID();
    await sql(
      `INSERT INTO hosts (id, plan_name, slot, vcpus, memory_mib, disk_gib, first_port, ports, port_block, egress, state)
       VALUES (?, 'small', ${slot}, 1, 768, 4, 29000, 0, 0, '{}', ?)`,
      id,
      state,
    );
    return id;
  };
  const destroyHost = `UPDATE hosts SET state = 'destroyed' WHERE instance_id = ${ofInstance(second)}`;
  await sql(destroyHost);
  const claim = (id: string, to: string, state = 'creating') =>
    sql(
      `UPDATE hosts SET tenant_id = ${tenantOf(to)}, instance_id = ${ofInstance(to)}, state = ? WHERE id = ?`,
      state,
      id,
    );
  const id = await insert(30, 'parked');
  // A tenant without an instance, another state without an owner, and an owner while it is parked.
  await expect(sql(`UPDATE hosts SET tenant_id = ${tenantOf(second)} WHERE id = ?`, id)).rejects.toThrow();
  await expect(sql(`UPDATE hosts SET state = 'running' WHERE id = ?`, id)).rejects.toThrow(
    'hosts_parked_has_no_owner',
  );
  await expect(claim(id, second, 'parked')).rejects.toThrow('hosts_parked_has_no_owner');
  await claim(id, second);
  await expect(claim(id, first)).rejects.toThrow('never given to another');
  await expect(
    sql(`UPDATE hosts SET tenant_id = NULL, instance_id = NULL, state = 'parked' WHERE id = ?`, id),
  ).rejects.toThrow('never given to another');
  await expect(sql(`UPDATE hosts SET state = 'parked' WHERE id = ?`, id)).rejects.toThrow(
    'hosts_parked_has_no_owner',
  );
  await sql(destroyHost);
  await expect(claim(id, first)).rejects.toThrow('never given to another');

  // A host that is not parked yet, and one that was destroyed without ever having an owner.
  await expect(claim(await insert(31, 'parking'), second)).rejects.toThrow('not parked in the pool');
  const gone = await insert(32, 'parked');
  await sql(`UPDATE hosts SET state = 'destroyed' WHERE id = ?`, gone);
  await expect(claim(gone, second, 'destroyed')).rejects.toThrow('not parked in the pool');

  // A host that was set aside loses the owner of its row, and nobody can claim it.
  const disputed = await insert(33, 'parked');
  const setAside = `UPDATE hosts SET state = 'disputed', problem = 'it is of another instance' WHERE id = ?`;
  await expect(sql(`UPDATE hosts SET state = 'disputed' WHERE id = ?`, disputed)).rejects.toThrow(
    'hosts_disputed_has_problem',
  );
  await sql(setAside, disputed);
  await expect(claim(disputed, first)).rejects.toThrow('not parked in the pool');
  await sql(`DELETE FROM hosts WHERE tenant_id IS NULL`);
});

it('schema: a destroyed host can not be used again', async () => {
  const id = randomUUID();
  await addDestroyedHost(id, 40);
  await expect(sql(`UPDATE hosts SET state = 'running' WHERE id = ?`, id)).rejects.toThrow(
    'never used again',
  );
});

it('schema: an instance and a slot have at most one living host', async () => {
  const insert = (slot: number, owner: string) =>
    sql(
      `INSERT INTO hosts (id, instance_id, tenant_id, plan_name, slot, vcpus, memory_mib, disk_gib, first_port, ports, port_block, egress, state)
       SELECT gen_random_uuid(), id, tenant_id, 'small', ${slot}, 1, 768, 4, 29000, 0, 0, '{}', 'creating' FROM instances WHERE osb_id = ?`,
      owner,
    );
  await expect(insert(45, first)).rejects.toThrow('hosts_one_living_per_instance');
  await sql(`UPDATE hosts SET state = 'destroyed' WHERE instance_id = ${ofInstance(second)}`);
  await expect(insert(1, second)).rejects.toThrow('hosts_one_living_per_slot');
});

it('schema: an instance has at most one operation in progress', async () => {
  const insert = () =>
    sql(
      `INSERT INTO operations (id, kind, instance_id, state, step, description, deadline, run_after)
       SELECT gen_random_uuid(), 'restart', id, 'in progress', 'prepare', '', now(), now() + interval '1 hour' FROM instances WHERE osb_id = ?`,
      first,
    );
  await insert();
  await expect(insert()).rejects.toThrow('operations_one_in_progress');
  await sql(`DELETE FROM operations WHERE state = 'in progress'`);
});

it('migrations: can all be rolled back and run again', async () => {
  const { connectionString, drop } = await createTestDatabase(inject('postgres'));
  const database = openDatabase(connectionString);
  try {
    await database.migrate.rollback({ migrationSource }, true);
    const tables = `SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'knex%'`;
    expect((await database.raw<{ rows: unknown[] }>(tables)).rows).toEqual([]);
    await database.migrate.latest({ migrationSource });
    expect((await database.raw<{ rows: unknown[] }>(tables)).rows.length).toBeGreaterThan(8);
  } finally {
    await database.destroy();
    await drop();
  }
});
