import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import supertest from 'supertest';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { toHostSpec } from '../../src/core/model/host-spec.ts';
import { eventually } from '../support/eventually.ts';
import {
  catalogFile,
  hints,
  ids,
  instance,
  makeTestBroker,
  operator,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';

/** Postgres has lost its last transactions: what it says about hosts is not what the hosts say about themselves. */
const [offering] = catalogFile.offerings;
const plans = offering?.plans.map((plan) => (plan.id === ids.plan ? { ...plan, pool: 2 } : plan));
const catalog = { offerings: [{ ...offering, plans }] };
let broker: TestBroker;

beforeEach(async () => {
  broker = await makeTestBroker(inject('postgres'), { catalog, slots: 6 });
  await broker.hypervisor.makeTemplate(() => undefined, new AbortController().signal);
});
afterEach(() => broker.stop());

/** Creates an instance. @returns its host. */
async function create(): Promise<{ osbId: string; hostId: string }> {
  const osbId = randomUUID();
  const before = new Set((await broker.store.records.livingHosts()).map(({ id }) => id));
  const made = await broker.ask('put', `${instance(osbId)}?accepts_incomplete=true`).send(provisionBody);
  expect(made.status).toBe(201);
  const [host] = (await broker.store.records.livingHosts()).filter(({ id }) => !before.has(id));
  if (host === undefined) throw new Error('the instance has no host');
  return { osbId, hostId: host.id };
}

/** The VM of a tenant's host: its container engine answers with the same identity as long as nothing touches it. */
async function vmOf(hostId: string): Promise<object | undefined> {
  const file = path.join(broker.stateDirectory, 'simulated', 'hosts', hostId, 'host.json');
  return JSON.parse(await readFile(file, 'utf8')) as object;
}

/** As a failover to a replica that lacks the transactions since the host was claimed, or made. */
async function forget(hostId: string, sql: string): Promise<void> {
  await broker.database.transaction(async (transaction) => {
    await transaction.raw('SET LOCAL session_replication_role = replica');
    await transaction.raw(
      `DELETE FROM operations WHERE instance_id IN (SELECT instance_id FROM hosts WHERE id = ?)`,
      [hostId],
    );
    await transaction.raw(sql, [hostId]);
  });
}
const forgetClaim = (hostId: string) =>
  forget(
    hostId,
    `UPDATE hosts SET state = 'parked', instance_id = NULL, tenant_id = NULL, engine_host = NULL, engine_port = NULL,
      created_at = 'epoch' WHERE id = ?`,
  );

async function overviewOf(hostId: string) {
  const answer = await supertest(broker.mgmt).get('/mgmt/hosts').auth(operator.username, operator.password);
  return (answer.body as { hosts: { host: string; state: string; problem?: string }[] }).hosts.find(
    ({ host }) => host === hostId,
  );
}

// Fails without prepareAny (the create fails), and without the owner in the host's record (B gets A's host).
it('failover: a create whose host is another instance’s gets another one, and that host is untouched', async () => {
  const pool = broker.makePoolController();
  await pool.runOnce();
  broker.startWorker();
  const a = await create();
  const before = await vmOf(a.hostId);
  await forgetClaim(a.hostId);

  const b = await create();
  expect(b.hostId).not.toBe(a.hostId);
  expect(await vmOf(a.hostId)).toEqual(before);
  expect(await overviewOf(a.hostId)).toMatchObject({ state: 'disputed' });
  expect((await overviewOf(a.hostId))?.problem).toContain('belongs to instance');

  // Nothing that happens to B afterwards concerns A's host, and its slot is not given away.
  expect((await broker.ask('delete', `${instance(b.osbId)}?accepts_incomplete=true&${hints}`)).status).toBe(
    200,
  );
  await pool.runOnce();
  await broker.reconcile();
  expect(await vmOf(a.hostId)).toEqual(before);
  const slots = await broker
    .database<{ slot: number; state: string }>('hosts')
    .whereNot({ state: 'destroyed' });
  expect(new Set(slots.map(({ slot }) => slot)).size).toBe(slots.length);
});

// Fails without the spec in the destroy step: the rollback destroys A's host.
it('failover: a create that gets no other host is rolled back, and leaves the host alone', async () => {
  await broker.makePoolController().runOnce();
  broker.startWorker();
  const a = await create();
  const before = await vmOf(a.hostId);
  await forgetClaim(a.hostId);
  await broker.database('slots').whereNull('host_id').delete();

  const osbId = randomUUID();
  await broker.ask('put', `${instance(osbId)}?accepts_incomplete=true`).send(provisionBody);
  await eventually('the create has failed', async () => {
    const answer = await broker.ask('get', `${instance(osbId)}/last_operation`);
    return (answer.body as { state: string }).state === 'failed';
  });
  expect(await vmOf(a.hostId)).toEqual(before);
  expect((await overviewOf(a.hostId))?.state).toBe('disputed');
});

it('failover: the pool neither keeps nor destroys a host that belongs to an instance', async () => {
  const pool = broker.makePoolController();
  await pool.runOnce();
  broker.startWorker();
  const [a, b] = [await create(), await create()];
  const before = [await vmOf(a.hostId), await vmOf(b.hostId)];
  await forgetClaim(a.hostId);
  // Fails without compareHosts: a create may claim it.
  await broker.beginWork();
  expect((await broker.store.records.poolHosts()).map(({ id }) => id)).not.toContain(a.hostId);
  // Fails without the spec in the pool's destroy: a host from another image was destroyed.
  await forgetClaim(b.hostId);
  await broker.database('leadership_leases').delete();
  await broker.makePoolController({ hypervisor: { imageVersion: () => '9.9.9' } }).runOnce();
  expect([await vmOf(a.hostId), await vmOf(b.hostId)]).toEqual(before);
  expect((await overviewOf(b.hostId))?.state).toBe('disputed');
});

it('failover: a slot that a forgotten host uses is set aside until the host is gone', async () => {
  broker.startWorker();
  const a = await create();
  const before = await vmOf(a.hostId);
  const slot = (await broker.store.records.livingHost(a.hostId))?.slot ?? 0;
  await forget(a.hostId, `DELETE FROM hosts WHERE id = ?`);
  await broker.database('slots').where({ slot }).update({ host_id: null, rests_until: null });

  // Fails without the check of the slot in withOwners: both hosts have one network.
  const b = await create();
  expect(await vmOf(a.hostId)).toEqual(before);
  expect((await broker.store.records.disputedHosts()).map((host) => host.slot)).toEqual([slot]);
  await broker.beginWork();
  expect(await broker.store.records.disputedHosts()).toHaveLength(1);
  await broker.hypervisor.destroy(a.hostId);
  await broker.beginWork();
  expect(await broker.store.records.disputedHosts()).toEqual([]);
  expect(await broker.store.records.livingHost(b.hostId)).toBeDefined();
});

it('upgrade: hosts of a former version get their owner on record, and none of them is claimed again', async () => {
  await broker.makePoolController().runOnce();
  broker.startWorker();
  const [a, b] = [await create(), await create()];
  const ownerOf = async (hostId: string) =>
    (await broker.hypervisor.list()).find((host) => host.hostId === hostId)?.owner;
  for (const { hostId } of [a, b]) {
    const file = path.join(broker.stateDirectory, 'simulated', 'hosts', hostId, 'host.json');
    await writeFile(file, (await readFile(file, 'utf8')).replace(/"owner":"[^"]*",?/, '').replace(',}', '}'));
    expect(await ownerOf(hostId)).toBeUndefined();
  }
  const host = await broker.store.records.livingHost(a.hostId);
  // Fails without recordOwners.
  await forgetClaim(b.hostId);
  await broker.beginWork();
  expect(await ownerOf(a.hostId)).toBe(host?.instanceId);
  expect(await ownerOf(b.hostId)).toBeUndefined();

  // Fails if a host that has run for nobody on record can be started: C gets B's host.
  const before = await vmOf(b.hostId);
  const c = await create();
  expect(c.hostId).not.toBe(b.hostId);
  expect(await vmOf(b.hostId)).toEqual(before);
  expect((await overviewOf(b.hostId))?.state).toBe('disputed');
  if (host !== undefined) await broker.hypervisor.destroy(toHostSpec(host));
});
