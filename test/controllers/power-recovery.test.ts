import { expect, it } from 'vitest';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture();

/** Runs `run` until the worker reaches `act` and is killed there. */
async function killAt(act: string, run: () => Promise<void>): Promise<void> {
  let isKilled = false;
  fixture.before = (at) => {
    if (at === act) isKilled = true;
    // A killed worker does nothing more.
    if (isKilled) throw new Error('killed');
  };
  const { records } = fixture.broker.store;
  const setHostPower = records.setHostPower.bind(records);
  records.setHostPower = (...args) =>
    isKilled ? Promise.reject(new Error('killed')) : setHostPower(...args);
  await run();
  records.setHostPower = setHostPower;
  fixture.before = () => undefined;
  expect(isKilled).toBe(true);
  await fixture.expireLeadership();
}

it('worker killed before it has paused a host: the next worker pauses it, or wakes it', async () => {
  const host = await fixture.makeHost('pause');
  await killAt('pause', async () => {
    const worker = fixture.makeWorker();
    await worker.checkIdle();
    await worker.checkIdle();
  });
  expect(await fixture.powerOf(host)).toBe('paused');
  expect(await fixture.stateOf(host)).toBe('running');
  await fixture.makeWorker().checkIdle();
  expect(await fixture.stateOf(host)).toBe('paused');
  await fixture.request(host, 'running');
  await fixture.makeWorker().fulfilRequests();
  expect(await fixture.stateOf(host)).toBe('running');
  expect(await fixture.powerOf(host)).toBe('running');
});

it('worker killed before it has suspended a host: the next worker suspends it, and no memory is lost', async () => {
  const host = await fixture.makeHost('suspend');
  const { engine } = await fixture.rowOf(host);
  await killAt('suspend', async () => {
    const worker = fixture.makeWorker();
    for (let count = 0; count < 3; count += 1) await worker.checkIdle();
  });
  expect(await fixture.powerOf(host)).toBe('suspended');
  expect(await fixture.stateOf(host)).toBe('paused');
  await fixture.makeWorker().checkIdle();
  expect(await fixture.stateOf(host)).toBe('suspended');
  await fixture.request(host, 'running');
  await fixture.makeWorker().fulfilRequests();
  expect(await fixture.stateOf(host)).toBe('running');
  expect((await fixture.rowOf(host)).engine).toEqual(engine);
});

it('worker killed while it wakes a host: the next worker wakes it', async () => {
  for (const act of ['resume', 'identify']) {
    const host = await fixture.makeHost('run');
    await fixture.request(host, 'paused');
    await fixture.makeWorker().fulfilRequests();
    await fixture.request(host, 'running');
    await killAt(act, () => fixture.makeWorker().fulfilRequests());
    expect(await fixture.powerOf(host)).toBe('paused');
    expect(await fixture.requests()).toHaveLength(1);
    await fixture.makeWorker().fulfilRequests();
    expect(await fixture.powerOf(host)).toBe('running');
    expect(await fixture.stateOf(host)).toBe('running');
  }
});

it('worker killed: one other worker at a time becomes the leader', async () => {
  const host = await fixture.makeHost('pause');
  await fixture.makeWorker().checkIdle();
  const second = fixture.makeWorker();
  await second.checkIdle();
  await second.checkIdle();
  expect(await fixture.powerOf(host)).toBe('running');
  await fixture.expireLeadership();
  await second.checkIdle();
  await second.checkIdle();
  expect(await fixture.powerOf(host)).toBe('paused');
});

// Fails without wakeForgotten: its connections hang, and no gateway asks for a wake.
it('database that has lost a pause or a suspension: the host is woken', async () => {
  for (const power of ['paused', 'suspended'] as const) {
    const host = await fixture.makeHost('run');
    await fixture.request(host, power);
    await fixture.makeWorker().fulfilRequests();
    expect(await fixture.stateOf(host)).toBe(power);
    await fixture.broker.database('hosts').where({ id: host }).update({ power: 'running' });
    await fixture.expireLeadership();
    await fixture.makeWorker().checkIdle();
    expect(await fixture.stateOf(host)).toBe('running');
    expect(await fixture.powerOf(host)).toBe('running');
  }
});
