import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { expect, it } from 'vitest';
import { bindBody, binding, operator } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture();

it('power request: wakes a host and sets its clock before gateways are notified; connects a suspended one again', async () => {
  for (const power of ['paused', 'suspended'] as const) {
    const host = await fixture.makeHost('run');
    const worker = fixture.makeWorker();
    expect(await fixture.request(host, power)).toBe(true);
    await worker.fulfilRequests();
    expect(await fixture.stateOf(host)).toBe(power);
    expect(await fixture.requests()).toEqual([]);

    const acts: string[] = [];
    fixture.before = async (act) => {
      acts.push(act);
      expect(await fixture.powerOf(host)).toBe(power);
    };
    expect(await fixture.request(host, 'running')).toBe(true);
    await worker.fulfilRequests();
    fixture.before = () => undefined;
    expect(acts).toEqual(
      power === 'paused' ? ['resume', 'identify'] : ['prepare', 'resume', 'identify', 'connect'],
    );
    expect(await fixture.powerOf(host)).toBe('running');
    expect(await fixture.stateOf(host)).toBe('running');
    expect(await fixture.requests()).toEqual([]);
  }
});

it('power request: `running` leaves a running host as it is', async () => {
  const host = await fixture.makeHost('run');
  await fixture.request(host, 'running');
  await fixture.makeWorker().fulfilRequests();
  expect(await fixture.powerOf(host)).toBe('running');
  expect(await fixture.requests()).toEqual([]);
});

// Fails if gateways are notified only of changes.
it('power request: `running` for a running host notifies the gateways, one of which has missed it', async () => {
  const host = await fixture.makeHost('run');
  const notified = await fixture.recordNotifications();
  const bound = await fixture.broker.ask('put', binding(fixture.lastInstance, randomUUID())).send(bindBody);
  expect(bound.status).toBe(201);
  const [{ id }] = (await fixture.broker.database('bindings').select('id')) as [{ id: string }];
  notified.length = 0;
  await fixture.request(host, 'running');
  await fixture.makeWorker().fulfilRequests();
  await eventually('the gateways are notified of the binding', () => notified.includes(id));
});

// Fails if the notification is a separate statement: a worker that is killed before it leaves its gateways wrong.
it('power: `running` is recorded only together with the notification of gateways', async () => {
  const host = await fixture.makeHost('run');
  const { records } = fixture.broker.store;
  expect(await records.setHostPower(host, 'running', 'paused')).toBe(true);
  await fixture.broker.database.raw('ALTER TABLE bindings RENAME TO bindings_away');
  await expect(records.setHostPower(host, 'paused', 'running')).rejects.toThrow('bindings');
  await fixture.broker.database.raw('ALTER TABLE bindings_away RENAME TO bindings');
  expect(await fixture.powerOf(host)).toBe('paused');
  const notified = await fixture.recordNotifications();
  await fixture.broker.ask('put', binding(fixture.lastInstance, randomUUID())).send(bindBody);
  const [{ id }] = (await fixture.broker.database('bindings').select('id')) as [{ id: string }];
  notified.length = 0;
  expect(await records.setHostPower(host, 'paused', 'running')).toBe(true);
  await eventually('the gateways are notified of the binding', () => notified.includes(id));
  expect(await records.setHostPower(host, 'paused', 'running')).toBe(false);
});

it('power request: is retried until the host can be woken', async () => {
  const host = await fixture.makeHost('run');
  const worker = fixture.makeWorker();
  await fixture.request(host, 'paused');
  await worker.fulfilRequests();
  fixture.before = (act) => {
    if (act === 'resume') throw new Error('not now');
  };
  await fixture.request(host, 'running');
  await worker.fulfilRequests();
  expect(await fixture.powerOf(host)).toBe('paused');
  expect(await fixture.requests()).toHaveLength(1);
  fixture.before = () => undefined;
  await worker.fulfilRequests();
  expect(await fixture.powerOf(host)).toBe('running');
});

// Fails without one job per host: each request locked every requested host, 36 times in all.
it('power requests: each host is processed once if several are requested at the same time', async () => {
  const hosts: string[] = [];
  while (hosts.length < 6) hosts.push(await fixture.makeHost('run'));
  for (const host of hosts) await fixture.request(host, 'paused');
  const locked: string[] = [];
  const worker = fixture.makeWorker({}, locked);
  await worker.fulfilRequests();
  locked.length = 0;
  await Promise.all(
    hosts.map(async (host) => {
      await fixture.request(host, 'running');
      await worker.fulfilRequests();
    }),
  );
  expect(locked.sort()).toEqual([...hosts].sort());
  for (const host of hosts) expect(await fixture.powerOf(host)).toBe('running');
  expect(await fixture.requests()).toEqual([]);
});

// Fails if a request is read before its host is locked: the host was paused although it was requested by then.
it('power request: the last one counts', async () => {
  const host = await fixture.makeHost('run');
  const acts: string[] = [];
  fixture.before = (act) => void acts.push(act);
  const locked: string[] = [];
  const worker = fixture.makeWorker({}, locked);
  let unlock: () => void = () => undefined;
  let isLocked = false;
  const holder = fixture.broker.hypervisor.withHostLock(host, () => {
    isLocked = true;
    return new Promise<void>((resolve) => {
      unlock = resolve;
    });
  });
  await eventually('the host is locked by another', () => isLocked);
  await fixture.request(host, 'paused');
  const serving = worker.fulfilRequests();
  await eventually('the lock is waited for', () => locked.includes(host));
  await fixture.request(host, 'running');
  unlock();
  await holder;
  await serving;
  expect(acts).not.toContain('pause');
  expect(await fixture.powerOf(host)).toBe('running');
  expect(await fixture.requests()).toEqual([]);
});

it('management API: an operator requests a power state; an unknown host is a 404', async () => {
  const host = await fixture.makeHost('run');
  const put = (id: string, power: string) =>
    supertest(fixture.broker.mgmt)
      .put(`/mgmt/hosts/${id}/power/${power}`)
      .auth(operator.username, operator.password);
  expect((await put(host, 'paused')).status).toBe(202);
  await fixture.makeWorker().fulfilRequests();
  expect(await fixture.powerOf(host)).toBe('paused');
  const wrong = await put(host, 'off');
  expect(wrong.status).toBe(400);
  expect((wrong.body as { description: string }).description).toContain('power is "off"');
  expect((await put(randomUUID(), 'paused')).status).toBe(404);
  expect((await put("'; DROP TABLE hosts", 'paused')).status).toBe(404);
});

it('power request: waits for an operation in progress on the host', async () => {
  const host = await fixture.makeHost('run');
  await fixture.request(host, 'paused');
  const worker = fixture.makeWorker();
  await worker.fulfilRequests();
  const { instanceId } = await fixture.rowOf(host);
  const operation = {
    id: randomUUID(),
    kind: 'restart',
    instanceId,
    step: 'prepare',
    description: '',
  } as const;
  await fixture.broker.database('operations').insert({
    id: operation.id,
    kind: operation.kind,
    instance_id: instanceId,
    state: 'in progress',
    step: 'prepare',
    description: '',
    deadline: new Date(Date.now() + 60_000),
    run_after: new Date(Date.now() + 3_600_000),
  });
  await fixture.request(host, 'running');
  await worker.fulfilRequests();
  expect(await fixture.powerOf(host)).toBe('paused');
  expect(await fixture.requests()).toHaveLength(1);
  // The operation starts the host.
  await fixture.broker
    .database('operations')
    .where({ id: operation.id })
    .update({ run_after: new Date(0) });
  await eventually('the host is running', async () => (await fixture.powerOf(host)) === 'running');
  expect(await fixture.stateOf(host)).toBe('running');
  await eventually('the operation has ended', async () => {
    await worker.fulfilRequests();
    return (await fixture.requests()).length === 0;
  });
});
