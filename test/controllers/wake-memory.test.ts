import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { expect, it } from 'vitest';
import { createLiveBindingsSource } from '../../src/postgres/live-bindings.ts';
import { createWorkerRecords } from '../../src/postgres/workers.ts';
import { bindBody, binding, operator } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture();

const reportNodeMemory = (memoryAvailableMib: number) =>
  createWorkerRecords(fixture.broker.database).report({
    name: 'w',
    hypervisor: 'qemu',
    templates: [],
    memoryAvailableMib,
    memoryTotalMib: 100_000,
  });
const metrics = async () =>
  (await supertest(fixture.broker.mgmt).get('/mgmt/metrics').auth(operator.username, operator.password)).text;

// Fails if a wake does not check the node's memory.
it('wake: is refused while the node lacks memory, which gateways are notified of at once; succeeds later', async () => {
  const host = await fixture.makeHost('run');
  await fixture.request(host, 'suspended');
  const worker = fixture.makeWorker();
  await worker.fulfilRequests();
  const bound = await fixture.broker.ask('put', binding(fixture.lastInstance, randomUUID())).send(bindBody);
  expect(bound.status).toBe(201);
  const [{ id }] = (await fixture.broker.database('bindings').select('id')) as [{ id: string }];
  const source = createLiveBindingsSource({
    connectionString: fixture.broker.urls.gateway,
    connections: () => 0,
  });
  const notified: string[] = [];
  await source.open({ changed: (bindingId) => notified.push(bindingId), lost: () => undefined });
  fixture.cleanUp.push(() => source.close());
  const refusedAt = async () => (await source.read([id]))[0]?.wakeRefusedAt;

  // A host of 768 MiB is expected to use a quarter of it.
  await reportNodeMemory(1_024 + 191);
  await source.wake(host);
  await worker.fulfilRequests();
  expect(await fixture.stateOf(host)).toBe('suspended');
  expect(await fixture.powerOf(host)).toBe('suspended');
  expect(await fixture.requests()).toEqual([]);
  await eventually('the gateway is notified', () => notified.includes(id));
  expect(await refusedAt()).toBeInstanceOf(Date);
  expect(await metrics()).toContain('berth_hosts_wake_refused 1');

  await reportNodeMemory(1_024 + 192);
  await source.wake(host);
  await worker.fulfilRequests();
  expect(await fixture.powerOf(host)).toBe('running');
  expect(await refusedAt()).toBeUndefined();
  expect(await metrics()).toContain('berth_hosts_wake_refused 0');
});

// Fails if each wake is checked alone.
it('wake: memory that other hosts are about to take is not available', async () => {
  const hosts = [await fixture.makeHost('run'), await fixture.makeHost('run'), await fixture.makeHost('run')];
  for (const host of hosts) await fixture.request(host, 'suspended');
  const worker = fixture.makeWorker();
  await worker.fulfilRequests();
  await reportNodeMemory(1_024 + 2 * 192);
  for (const host of hosts) await fixture.request(host, 'running');
  await worker.fulfilRequests();
  const powers = await Promise.all(hosts.map(fixture.powerOf));
  expect(powers.sort()).toEqual(['running', 'running', 'suspended']);
});

it('wake: a paused host is woken even if the node has no memory left', async () => {
  const host = await fixture.makeHost('run');
  await fixture.request(host, 'paused');
  const worker = fixture.makeWorker();
  await worker.fulfilRequests();
  await reportNodeMemory(0);
  await fixture.request(host, 'running');
  await worker.fulfilRequests();
  expect(await fixture.powerOf(host)).toBe('running');
});
