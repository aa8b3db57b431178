/* eslint-disable max-lines -- all tests share one broker, one driver with faults and one pool controller */
import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import type { Faults } from '../../src/hypervisors/with-faults.ts';
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
import { eventually } from '../support/eventually.ts';

const size = 3;
/** The catalog of the tests, with a pool for the small plan. */
const withPool = (pool: number) => {
  const [offering] = catalogFile.offerings;
  const plans = offering?.plans.map((plan) =>
    plan.id === ids.plan ? { ...plan, pool } : { ...plan, template: 'never' },
  );
  return { offerings: [{ ...offering, plans }] };
};
const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };
let broker: TestBroker;
let before: Faults['before'] = () => undefined;

beforeEach(async () => {
  before = () => undefined;
  broker = await makeTestBroker(inject('postgres'), {
    catalog: withPool(size),
    slots: 12,
    faults: { before: (act, hostId) => before(act, hostId) },
  });
  await broker.hypervisor.makeTemplate(() => undefined, new AbortController().signal);
});
afterEach(() => broker.stop());

const create = (id: string) =>
  broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
const last = async (id: string) =>
  (await broker.ask('get', `${instance(id)}/last_operation`)).body as { state: string; description: string };
const pooled = () => broker.store.records.poolHosts();
const ready = async () => (await pooled()).filter(({ state }) => state === 'parked').map(({ id }) => id);
const existing = async () => (await broker.hypervisor.list()).map(({ hostId }) => hostId).sort();
const owned = async () => (await broker.store.records.livingHosts()).map(({ id }) => id);

// Fails if slot and host are recorded in two statements: the slot was lost.
it('pool: a host that could not be recorded takes no slot', async () => {
  const { records } = broker.store;
  const free = await records.freeSlots();
  const impossible = { ...shape, memoryMib: 2 ** 40 };
  await expect(
    records.insertPoolHost({
      ...{ id: randomUUID(), planName: 'small', shape: impossible },
      ...{ publishedPorts: 2, egress: { kind: 'none' } },
    }),
  ).rejects.toThrow(/out of range/);
  expect(await records.freeSlots()).toBe(free);
});

it('pool: is filled to its size with hosts that belong to no tenant', async () => {
  const pool = broker.makePoolController();
  await pool.runOnce();
  const hosts = await ready();
  expect(hosts).toHaveLength(size);
  expect(await existing()).toEqual([...hosts].sort());
  expect(await owned()).toEqual([]);
  await pool.runOnce();
  expect(await ready()).toEqual(hosts);
});

it('create: claims the oldest parked host, creates none, and reports it; then the pool is filled again', async () => {
  const pool = broker.makePoolController();
  await pool.runOnce();
  const [oldest] = await ready();
  const made: string[] = [];
  before = (act, hostId) => {
    if (act === 'park') made.push(hostId);
  };
  broker.startWorker();
  const id = randomUUID();
  expect((await create(id)).status).toBe(201);
  expect(await owned()).toEqual([oldest]);
  expect(await existing()).toHaveLength(size);
  expect((await last(id)).description).toContain('out of the pool');
  await pool.runOnce();
  expect(made).toHaveLength(1);
  expect(await ready()).toHaveLength(size);
  expect(await ready()).not.toContain(oldest);
});

it('create: restores from the template if the pool is empty, boots cold if the plan says so, and reports which', async () => {
  broker.startWorker();
  const restored = randomUUID();
  expect((await create(restored)).status).toBe(201);
  expect((await last(restored)).description).toContain('restored from the template');
  const booted = randomUUID();
  const body = { ...provisionBody, plan_id: 'plan-large' };
  expect((await broker.ask('put', `${instance(booted)}?accepts_incomplete=true`).send(body)).status).toBe(
    201,
  );
  expect((await last(booted)).description).toContain('booted cold');
  const metrics = await supertest(broker.mgmt)
    .get('/mgmt/metrics')
    .auth(operator.username, operator.password);
  expect(metrics.text).toContain('berth_hosts_made{from="template",plan="small"} 1');
  expect(metrics.text).toContain('berth_hosts_made{from="boot",plan="large"} 1');
});

it('create: concurrent creates each get another host', async () => {
  await broker.makePoolController().runOnce();
  const hosts = await ready();
  broker.startWorker('one');
  broker.startWorker('two');
  const answers = await Promise.all(Array.from({ length: 8 }, () => create(randomUUID())));
  expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 201));
  const taken = await owned();
  expect(new Set(taken).size).toBe(8);
  expect(taken).toEqual(expect.arrayContaining(hosts));
  expect(await ready()).toEqual([]);
});

it('pool: a host that has served a tenant never returns to it', async () => {
  const pool = broker.makePoolController();
  await pool.runOnce();
  broker.startWorker();
  const id = randomUUID();
  await create(id);
  const [served = ''] = await owned();
  expect((await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`)).status).toBe(200);
  await pool.runOnce();
  expect(await ready()).not.toContain(served);
  expect(await existing()).not.toContain(served);
  const row = (await broker.database('hosts').where({ id: served }).first()) as { state: string };
  expect(row.state).toBe('destroyed');
});

it('pool: one worker at a time maintains it; another one takes over if its lease expires', async () => {
  const first = broker.makePoolController();
  await first.runOnce();
  await broker.database('hosts').where({ state: 'parked' }).limit(1).update({ state: 'parking' });
  const second = broker.makePoolController();
  const former = await pooled();
  await second.runOnce();
  expect(await pooled()).toEqual(former);
  await broker.database('leadership_leases').update({ lease_until: new Date(0) });
  await second.runOnce();
  expect(await ready()).toHaveLength(size);
  // The former leader changes nothing.
  before = () => {
    throw new Error('it must not change a host');
  };
  await broker.database('hosts').where({ state: 'parked' }).limit(1).update({ state: 'parking' });
  await first.runOnce();
});

it('pool: nothing is lost if a worker hangs while it parks a host and fails after another took over', async () => {
  for (const act of ['prepare', 'park'] as const) {
    let reached = false;
    let die: () => void = () => undefined;
    before = (at) => {
      if (at !== act || reached) return undefined;
      reached = true;
      return new Promise<void>((_, reject) => {
        die = () => {
          reject(new Error('killed'));
        };
      });
    };
    const hung = broker.makePoolController().runOnce();
    await eventually('the worker is in the middle of the act', () => reached);
    const [half] = (await pooled()).filter(({ state }) => state === 'parking');
    if (half === undefined) throw new Error('the host was not recorded before it was created');
    await broker.database('leadership_leases').update({ lease_until: new Date(0) });
    // It waits for the lock of the half-made host.
    const successor = broker.makePoolController().runOnce();
    die();
    await expect(hung).rejects.toThrow('killed');
    await successor;
    expect(await ready()).toHaveLength(size);
    expect(await existing()).toEqual([...(await ready())].sort());
    await broker.database('leadership_leases').update({ lease_until: new Date(0) });
    for (const id of await ready()) {
      await broker.store.records.withdrawPoolHost(id);
    }
  }
});

it('create: continues with the claimed host after the worker was killed', async () => {
  await broker.makePoolController().runOnce();
  const [oldest] = await ready();
  const id = randomUUID();
  const begun = await broker
    .askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`)
    .send(provisionBody);
  expect(begun.status).toBe(202);
  // No worker has begun yet. The claim is recorded, so reconciliation does not destroy the host.
  expect(await owned()).toEqual([oldest]);
  await broker.reconcile();
  expect(await existing()).toContain(oldest);
  broker.startWorker();
  await eventually('the create has ended', async () => (await last(id)).state === 'succeeded');
  expect((await last(id)).description).toContain('out of the pool');
});

it('pool: restores a parked host whose VM has ended; reconciliation leaves parked hosts alone', async () => {
  await broker.makePoolController().runOnce();
  const [first = '', ...others] = await ready();
  await broker.reconcile();
  expect(await existing()).toHaveLength(size);
  await broker.hypervisor.stop(first);
  await broker.database('leadership_leases').update({ lease_until: new Date(0) });
  await broker.makePoolController().runOnce();
  const now = await ready();
  expect(now).toEqual([first, ...others]);
  expect((await broker.hypervisor.list()).map(({ state }) => state)).toEqual(Array(size).fill('paused'));
});

it('pool: replaces hosts that no longer match their plan', async () => {
  await broker.makePoolController().runOnce();
  const [first = ''] = await ready();
  await broker.database('hosts').where({ id: first }).update({ memory_mib: 512 });
  await broker.database('leadership_leases').update({ lease_until: new Date(0) });
  await broker.makePoolController().runOnce();
  expect(await ready()).toHaveLength(size);
  expect(await ready()).not.toContain(first);
});

// Fails if only the template is compared: hosts of a former image were claimed until a new template was made.
it('pool: destroys hosts of a former image, even while there is no template of the new one', async () => {
  await broker.makePoolController().runOnce();
  expect(await ready()).toHaveLength(size);
  await broker.database('leadership_leases').update({ lease_until: new Date(0) });
  const upgraded = { imageVersion: () => '2.0.0+simulated', hasTemplate: () => Promise.resolve(false) };
  await broker.makePoolController({ hypervisor: upgraded }).runOnce();
  expect(await pooled()).toEqual([]);
  expect(await existing()).toEqual([]);
});

// Fails if the driver is asked instead of the row: creates claim by the row.
it('pool: destroys hosts that a former version of Berth has parked, whose image is not on record', async () => {
  await broker.makePoolController().runOnce();
  const former = await ready();
  await broker.database('hosts').where({ state: 'parked' }).update({ image_version: null });
  await broker.database('leadership_leases').update({ lease_until: new Date(0) });
  await broker.makePoolController().runOnce();
  expect(await ready()).toHaveLength(size);
  expect((await ready()).filter((id) => former.includes(id))).toEqual([]);
});

// Fails if every leased operation counts: after a reboot the pool stayed empty until all hosts had booted.
it('lease loop: is busy at the start of an operation, but not while a guest boots or hangs', async () => {
  let answers = false;
  before = async (act) => {
    if (act === 'identify') await eventually('the guest answers', () => answers, { deadlineMs: 60_000 });
  };
  const slow = broker.startWorker('slow', 6_000, 3_600_000);
  await broker
    .askAsynchronous('put', `${instance(randomUUID())}?accepts_incomplete=true`)
    .send(provisionBody);
  await eventually('it has begun', () => slow.isBusy());
  answers = true;
  await eventually('it has ended', () => !slow.isBusy());
  await slow.stop();
  answers = false;
  const worker = broker.startWorker('worker', 6_000, 1);
  await broker
    .askAsynchronous('put', `${instance(randomUUID())}?accepts_incomplete=true`)
    .send(provisionBody);
  await eventually(
    'its guest is waited for',
    async () =>
      (await broker.database('operations').where({ step: 'identify', state: 'in progress' })).length > 0,
  );
  expect(worker.isBusy()).toBe(false);
  answers = true;
});

it('pool: parks no host while a tenant waits', async () => {
  let busy = true;
  const pool = broker.makePoolController({ isBusy: () => busy });
  await pool.runOnce();
  expect(await pooled()).toEqual([]);
  busy = false;
  await pool.runOnce();
  expect(await ready()).toHaveLength(size);
});

it('pool: shrinks host by host while memory is short, and grows only if there is plenty', async () => {
  let available = 5_000;
  const pool = broker.makePoolController({ availableMib: () => available });
  await pool.runOnce();
  expect(await ready()).toHaveLength(size);
  // 1,000 MiB are the reserve, 192 MiB the expected use of one host: a create of the other plan is admitted.
  available = 1_191;
  await pool.runOnce();
  expect(await ready()).toHaveLength(size - 1);
  expect(await existing()).toHaveLength(size - 1);
  available = 1_400;
  await pool.runOnce();
  expect(await ready()).toHaveLength(size - 1);
  available = 5_000;
  await pool.runOnce();
  expect(await ready()).toHaveLength(size);
});

it('pool: shrinks if no slot is left, so that a create of another plan succeeds', async () => {
  await broker.makePoolController().runOnce();
  await broker.database('slots').whereNull('host_id').delete();
  broker.startWorker();
  const large = { ...provisionBody, plan_id: 'plan-large' };
  const ask = () => broker.ask('put', `${instance(randomUUID())}?accepts_incomplete=true`).send(large);
  expect((await ask()).status).toBe(503);
  await broker.database('leadership_leases').update({ lease_until: new Date(0) });
  await broker.makePoolController().runOnce();
  expect(await ready()).toHaveLength(size - 1);
  expect((await ask()).status).toBe(201);
});

it('pool: a host that could not be created leaves neither a row nor a VM', async () => {
  before = (act) => {
    if (act === 'park') throw new Error('QEMU said no');
  };
  await expect(broker.makePoolController().runOnce()).rejects.toThrow('QEMU said no');
  expect(await pooled()).toEqual([]);
  expect(await existing()).toEqual([]);
  expect(await broker.database('slots').whereNotNull('host_id')).toEqual([]);
});
