import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { expect, it } from 'vitest';
import { toHostSpec } from '../../src/core/model/host-spec.ts';
import { hints, instance } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture();

it('idle check: pauses a host once it has been idle for long enough, and not before', async () => {
  const host = await fixture.makeHost('pause');
  const patient = fixture.makeWorker({ pauseAfterMs: 3_600_000 });
  await patient.checkIdle();
  await patient.checkIdle();
  expect(await fixture.powerOf(host)).toBe('running');
  await fixture.expireLeadership();
  const worker = fixture.makeWorker();
  // The first check only records the packet counts.
  await worker.checkIdle();
  expect(await fixture.powerOf(host)).toBe('running');
  await worker.checkIdle();
  expect(await fixture.powerOf(host)).toBe('paused');
  expect(await fixture.stateOf(host)).toBe('paused');
  // A paused host counts as healthy: it is not restarted.
  await fixture.broker.reconcile();
  expect(await fixture.broker.database('operations').where({ kind: 'restart' })).toEqual([]);
  // Its policy is to pause: it is never suspended.
  await worker.checkIdle();
  expect(await fixture.powerOf(host)).toBe('paused');
});

it('idle check: leaves a host with the policy `run` running', async () => {
  const host = await fixture.makeHost('run');
  const worker = fixture.makeWorker();
  for (let count = 0; count < 3; count += 1) await worker.checkIdle();
  expect(await fixture.powerOf(host)).toBe('running');
  expect(await fixture.stateOf(host)).toBe('running');
});

// Fails if the number of running containers is ignored.
it('idle check: leaves a host running while it runs a container', async () => {
  const host = await fixture.makeHost('suspend');
  fixture.containers.set(host, 1);
  const worker = fixture.makeWorker();
  for (let count = 0; count < 4; count += 1) await worker.checkIdle();
  expect(await fixture.powerOf(host)).toBe('running');
  fixture.containers.delete(host);
  await eventually('it is paused', async () => {
    await worker.checkIdle();
    return (await fixture.powerOf(host)) !== 'running';
  });
});

it('idle check: does not pause a host that was used since the last check', async () => {
  const host = await fixture.makeHost('pause');
  const worker = fixture.makeWorker();
  await worker.checkIdle();
  const { engine } = await fixture.rowOf(host);
  await fetch(`http://${engine?.host ?? ''}:${engine?.port ?? 0}/version`, {
    headers: { connection: 'close' },
  });
  await worker.checkIdle();
  expect(await fixture.powerOf(host)).toBe('running');
});

it('idle check: suspends a host with the policy `suspend` once it has been paused for long enough', async () => {
  const host = await fixture.makeHost('suspend');
  const patient = fixture.makeWorker({ suspendAfterMs: 3_600_000 });
  for (let count = 0; count < 4; count += 1) await patient.checkIdle();
  expect(await fixture.powerOf(host)).toBe('paused');
  await fixture.expireLeadership();
  await fixture.makeWorker().checkIdle();
  expect(await fixture.powerOf(host)).toBe('suspended');
  expect(await fixture.stateOf(host)).toBe('suspended');
  await fixture.broker.reconcile();
  expect(await fixture.stateOf(host)).toBe('suspended');
  expect((await fixture.rowOf(host)).engine).toBeDefined();
});

// Fails if it is woken, as a running host is that can't be paused: a full disk kept waking all idle hosts.
it('idle check: leaves a host paused that can not be suspended, and suspends it later', async () => {
  const host = await fixture.makeHost('suspend');
  await fixture.request(host, 'paused');
  const worker = fixture.makeWorker();
  await worker.fulfilRequests();
  let acts: string[] = [];
  fixture.before = (act) => {
    acts.push(act);
    return act === 'suspend' ? Promise.reject(new Error('the disk is full')) : Promise.resolve();
  };
  await worker.checkIdle();
  expect(acts).toContain('suspend');
  expect(acts).not.toContain('resume');
  expect(await fixture.powerOf(host)).toBe('paused');
  expect(await fixture.stateOf(host)).toBe('paused');
  fixture.before = () => undefined;
  acts = [];
  await worker.checkIdle();
  expect(await fixture.powerOf(host)).toBe('suspended');
});

// Fails if open connections count as use: the host was woken instead.
it('idle check: suspends a paused host with the policy `suspend` although a connection to it is open', async () => {
  const host = await fixture.makeHost('suspend');
  const { engine } = await fixture.rowOf(host);
  const socket = connect(engine?.port ?? 0, engine?.host);
  await once(socket, 'connect');
  await fixture.request(host, 'paused');
  const worker = fixture.makeWorker();
  await worker.fulfilRequests();
  expect(await fixture.powerOf(host)).toBe('paused');
  expect(socket.readyState).toBe('open');
  await worker.checkIdle();
  expect(await fixture.powerOf(host)).toBe('suspended');
  expect(await fixture.stateOf(host)).toBe('suspended');
  socket.destroy();
});

it('idle check: wakes a host again if a client connects while it is being paused', async () => {
  const host = await fixture.makeHost('pause');
  const worker = fixture.makeWorker();
  await worker.checkIdle();
  const { engine } = await fixture.rowOf(host);
  let socket: Socket | undefined;
  fixture.before = async (act) => {
    // From a gateway that has not been notified of the pause yet.
    if (act !== 'pause' || engine === undefined) return;
    socket = connect(engine.port, engine.host);
    await once(socket, 'connect');
  };
  await worker.checkIdle();
  expect(socket?.readyState).toBe('open');
  expect(await fixture.powerOf(host)).toBe('running');
  expect(await fixture.stateOf(host)).toBe('running');
  socket?.destroy();
});

// Fails if only open connections count: a container that the client had started was paused.
it('idle check: wakes a host again if a client connects and disconnects while it is being paused', async () => {
  const host = await fixture.makeHost('pause');
  const worker = fixture.makeWorker();
  await worker.checkIdle();
  const { engine } = await fixture.rowOf(host);
  const address = `http://${engine?.host ?? ''}:${engine?.port ?? 0}/version`;
  let visits = 0;
  fixture.before = async (act) => {
    if (act !== 'pause') return;
    visits += 1;
    await (await fetch(address, { headers: { connection: 'close' } })).text();
    const spec = toHostSpec(await fixture.rowOf(host));
    await eventually(
      'the client has disconnected',
      async () => (await fixture.broker.hypervisor.traffic([spec])).get(host)?.connections === 0,
    );
  };
  await worker.checkIdle();
  expect(visits).toBe(1);
  expect(await fixture.powerOf(host)).toBe('running');
  expect(await fixture.stateOf(host)).toBe('running');
});

// Fails if each host is locked before it is checked: a lock starts a child process.
it('idle check: locks no host unless there is something to do', async () => {
  const paused = [await fixture.makeHost('pause'), await fixture.makeHost('suspend')];
  const awake = [await fixture.makeHost('run'), await fixture.makeHost('pause')];
  for (const host of paused) await fixture.request(host, 'paused');
  const locked: string[] = [];
  const worker = fixture.makeWorker({ pauseAfterMs: 3_600_000, suspendAfterMs: 3_600_000 }, locked);
  await worker.fulfilRequests();
  expect(locked.splice(0).sort()).toEqual([...paused].sort());
  for (let count = 0; count < 3; count += 1) await worker.checkIdle();
  expect(locked).toEqual([]);
  for (const host of awake) expect(await fixture.stateOf(host)).toBe('running');
  // Only a host that needs an act is locked.
  await fixture.broker.hypervisor.resume(toHostSpec(await fixture.rowOf(paused[0] ?? '')));
  await worker.checkIdle();
  expect(locked).toEqual([paused[0]]);
  expect(await fixture.stateOf(paused[0] ?? '')).toBe('paused');
});

it('delete: succeeds for a paused and for a suspended host', async () => {
  for (const power of ['paused', 'suspended'] as const) {
    const host = await fixture.makeHost('run');
    await fixture.request(host, power);
    await fixture.makeWorker().fulfilRequests();
    expect(await fixture.powerOf(host)).toBe(power);
    const gone = await fixture.broker.ask(
      'delete',
      `${instance(fixture.lastInstance)}?accepts_incomplete=true&${hints}`,
    );
    expect(gone.status).toBe(200);
    expect(await fixture.stateOf(host)).toBeUndefined();
  }
  expect(await fixture.requests()).toEqual([]);
});
