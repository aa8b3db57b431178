import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import type { Capabilities } from '../../src/core/hypervisor/capabilities.ts';
import {
  ids,
  instance,
  makeTestBroker,
  operator,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';

const size = (vcpus: number, memory: number, disk: number, ports: number) => ({
  host: { vcpus, memory_mib: memory, disk_gib: disk, published_ports: ports },
});
const plan = (name: string, more: object) => ({
  ...{ id: `plan-${name}`, name, description: name, free: true },
  ...more,
});
const catalog = {
  pool: { size: 3, max_size: 5 },
  offerings: [
    {
      ...{ id: ids.service, name: 'container-host', description: 'A container host' },
      plans: [
        plan('large', size(4, 4096, 40, 20)),
        plan('small', size(1, 768, 4, 10)),
        plan('medium', { ...size(2, 2048, 16, 20), pool: 1 }),
        // Less disk than any host of the pool has.
        plan('slim', size(1, 1024, 2, 1)),
        plan('cold', { ...size(4, 4096, 40, 20), template: 'never' }),
      ],
    },
  ],
};
let broker: TestBroker;

const start = async (liveGrowth?: Capabilities['liveGrowth']) => {
  broker = await makeTestBroker(inject('postgres'), {
    ...{ catalog, slots: 20 },
    ...(liveGrowth && { liveGrowth }),
  });
  await broker.hypervisor.makeTemplate(() => undefined, new AbortController().signal);
};
beforeEach(() => start());
afterEach(() => broker.stop());

const fill = async () => {
  await broker.database('leadership_leases').update({ lease_until: new Date(0) });
  await broker.makePoolController().runOnce();
};
const create = async (name: string, parameters = {}, org = provisionBody.organization_guid) => {
  const id = randomUUID();
  const body = { ...provisionBody, plan_id: `plan-${name}`, parameters, organization_guid: org };
  const { status } = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(body);
  expect(status).toBe(201);
  const last = (await broker.ask('get', `${instance(id)}/last_operation`)).body as { description: string };
  return { description: last.description };
};
const parked = async () => (await broker.store.records.poolHosts()).map(({ planName }) => planName).sort();
const hasItsShape = async (hostId: string) => {
  const host = await broker.store.records.livingHost(hostId);
  if (host === undefined) throw new Error('the host is gone');
  const { slot, planName, shape, publishedPorts, egress, registries, instanceId } = host;
  return broker.hypervisor.hasShape({
    ...{ hostId, owner: instanceId, slot, planName, shape, publishedPorts, egress, registries },
  });
};
/** Newest first. */
const living = () =>
  broker
    .database('hosts')
    .join('instances', 'instances.id', 'hosts.instance_id')
    .orderBy('instances.created_at', 'desc')
    .select<{ id: string; plan_name: string; memory_mib: number; ports: number }[]>('hosts.*');

it('pool: serves creates of every plan, by the host that fits best, which gets the rest of its plan', async () => {
  await fill();
  expect(await parked()).toEqual(['medium', 'small', 'small']);
  broker.startWorker();

  expect((await create('medium')).description).toContain('out of the pool');
  expect(await parked()).toEqual(['small', 'small']);
  expect((await create('large', { published_ports: 7 })).description).toContain('out of the pool');
  expect(await parked()).toEqual(['small']);
  const [large] = await living();
  expect(large).toMatchObject({ plan_name: 'large', memory_mib: 4096, ports: 7 });
  expect(await hasItsShape(large?.id ?? '')).toBe(true);
  const usage = (await broker.database('quota_usage').where({ scope: 'total' }).first()) as object;
  expect(usage).toMatchObject({
    instances: 2,
    vcpus: 6,
    memory_mib: '6144',
    disk_gib: '56',
    published_ports: 27,
  });

  // Neither a plan that always boots nor one that is smaller takes a host of the pool.
  expect((await create('cold')).description).toContain('booted cold');
  expect((await create('slim')).description).not.toContain('out of the pool');
  expect(await parked()).toEqual(['small']);
});

it('pool: a driver that adds nothing to a running VM gives its hosts only to plans of their size', async () => {
  await broker.stop();
  await start({ vcpus: true, memory: false, disk: true });
  await fill();
  broker.startWorker();
  expect((await create('large')).description).toContain('restored from the template');
  expect((await create('small')).description).toContain('out of the pool');
  expect(await parked()).toEqual(['medium', 'small']);
});

it('pool: a host of another image than the one that is offered is not claimed', async () => {
  await fill();
  await broker.database('hosts').where({ state: 'parked' }).update({ image_version: '0.9.0+former' });
  broker.startWorker();
  expect((await create('small')).description).toContain('restored from the template');
  expect(await parked()).toHaveLength(3);
});

it('pool: grows with demand up to its limit, and prepares the sizes in demand in place of others', async () => {
  await fill();
  broker.startWorker();
  // One tenant counts for at most three, half of the largest pool; a quarter of the pool keeps the smallest size.
  for (let count = 0; count < 5; count += 1) await create('large');
  await fill();
  expect(await parked()).toEqual(['large', 'medium', 'small']);
  for (const org of ['second', 'third']) await create('large', {}, org);
  await fill();
  expect(await parked()).toEqual(['large', 'large', 'medium', 'small', 'small']);
  await broker.database('workers').insert({
    ...{
      name: 'node',
      hypervisor: 'simulated',
      templates: ['small', 'medium', 'large'],
      seen_at: new Date(),
    },
  });
  const page = await supertest(broker.mgmt).get('/mgmt/hosts').auth(operator.username, operator.password);
  expect((page.body as { pool: unknown }).pool).toEqual([
    { plan: 'large', wanted: 2, parked: 2 },
    { plan: 'small', wanted: 2, parked: 2 },
    { plan: 'medium', wanted: 1, parked: 1 },
  ]);
  const metrics = await supertest(broker.mgmt)
    .get('/mgmt/metrics')
    .auth(operator.username, operator.password);
  expect(metrics.text).toContain('berth_pool_hosts_wanted{plan="large"} 2');

  // Ten minutes later.
  await broker.database('instances').update({ created_at: new Date(Date.now() - 601_000) });
  await fill();
  expect(await parked()).toEqual(['medium', 'small', 'small']);
});

it('create: what a parked host lacks of its plan is admitted like that of a new host', async () => {
  await fill();
  broker.startWorker();
  await broker.database('workers').insert({
    ...{ name: 'node', hypervisor: 'simulated', templates: [] },
    ...{ memory_total_mib: 8192, memory_available_mib: 1100, seen_at: new Date() },
  });
  const ask = (name: string) =>
    broker
      .ask('put', `${instance(randomUUID())}?accepts_incomplete=true`)
      .send({ ...provisionBody, plan_id: `plan-${name}` });
  const refusedCreate = await ask('large');
  expect(refusedCreate.status).toBe(503);
  expect((refusedCreate.body as { description: string }).description).toContain('out of memory');
  expect(await parked()).toHaveLength(3);
  expect((await ask('small')).status).toBe(201);
});
