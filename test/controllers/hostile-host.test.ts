import { expect, it } from 'vitest';
import type { Faults } from '../../src/hypervisors/with-faults.ts';
import { runningContainers } from '../../src/hypervisors/qemu/engine/containers.ts';
import { engineAnswers } from '../../src/hypervisors/qemu/engine/engine.ts';
import { hints, ids, instance } from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { type HostileAnswer, makeHostileEngine } from '../../tools/lib/hostile-engine.ts';
import { createLineLogger } from '../support/logger.ts';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture({ deadlines: { longMs: 1_000, shortMs: 1_000 } });
const engineTimeoutMs = 300;

/** An idle host of a tenant that does what it likes in its guest, and one of somebody else. */
async function makeHosts() {
  const hostile = await fixture.makeHost('pause');
  const hostileInstance = fixture.lastInstance;
  const other = await fixture.makeHost('pause');
  return { hostile, hostileInstance, other };
}

/** The engine of this host is replaced: the driver's questions get the answers of a real TCP server. */
async function replaceEngine(hostile: string, answer: HostileAnswer): Promise<void> {
  const engine = await makeHostileEngine(answer);
  fixture.cleanUp.push(() => engine.close());
  fixture.before = async (method, hostId) => {
    if (hostId !== hostile) return;
    if (method === 'runningContainers') await runningContainers(engine, engineTimeoutMs);
    if (method === 'engineAnswers' && !(await engineAnswers(engine, engineTimeoutMs))) {
      throw new Error('the engine does not answer');
    }
  };
}

const never = () => new Promise<void>(() => undefined);
const hang =
  (method: Parameters<Faults['before']>[0], hostile: string): Faults['before'] =>
  (called, hostId) =>
    called === method && hostId === hostile ? never() : undefined;

async function expectOtherIsPaused(other: string): Promise<void> {
  const worker = fixture.makeWorker();
  await worker.checkIdle();
  await worker.checkIdle();
  expect(await fixture.powerOf(other)).toBe('paused');
}

async function expectDelete(osbId: string, hostId: string): Promise<void> {
  const { broker } = fixture;
  const answer = await broker.askAsynchronous(
    'delete',
    `${instance(osbId)}?accepts_incomplete=true&${hints}`,
  );
  expect(answer.status).toBe(202);
  await eventually('the instance is deleted', async () => {
    const { state } = (await broker.ask('get', `${instance(osbId)}/last_operation`)).body as {
      state: string;
    };
    return state === 'succeeded';
  });
  expect(await fixture.stateOf(hostId)).toBeUndefined();
}

const shapes: HostileAnswer[] = ['another protocol', 'nothing at all', 'one-byte chunks without end'];

// Fails (hangs) for "another protocol" if a call to an engine settles by events only.
it.each(shapes)(
  'hostile host: an engine that answers %s keeps no other host awake, and its instance can be deleted',
  async (answer) => {
    const { hostile, hostileInstance, other } = await makeHosts();
    await replaceEngine(hostile, answer);
    await expectOtherIsPaused(other);
    expect(await fixture.powerOf(hostile)).toBe('running');
    await expectDelete(hostileInstance, hostile);
  },
);

// Fails if the idle check waits for one host after the other, or without the deadlines of the driver's methods.
it('hostile host: a question that hangs keeps no other host awake, and the host can be deleted', async () => {
  const { hostile, hostileInstance, other } = await makeHosts();
  fixture.before = hang('runningContainers', hostile);
  await expectOtherIsPaused(other);
  await expectDelete(hostileInstance, hostile);
});

it.each(shapes)('hostile host: an update of a host that answers %s can be deleted', async (answer) => {
  const { hostile, hostileInstance } = await makeHosts();
  await replaceEngine(hostile, answer);
  await fixture.broker
    .askAsynchronous('patch', `${instance(hostileInstance)}?accepts_incomplete=true`)
    .send({ service_id: ids.service, plan_id: ids.otherPlan })
    .expect(202);
  await expectDelete(hostileInstance, hostile);
});

// Fails without the deadlines of the driver's methods: the lock of the host is held forever.
it('hostile host: an update whose step hangs does not keep the delete waiting', async () => {
  const { hostile, hostileInstance } = await makeHosts();
  let isHanging = false;
  fixture.before = (method, hostId) => {
    if (method !== 'grow' || hostId !== hostile) return undefined;
    isHanging = true;
    return never();
  };
  await fixture.broker
    .askAsynchronous('patch', `${instance(hostileInstance)}?accepts_incomplete=true`)
    .send({ service_id: ids.service, plan_id: ids.otherPlan })
    .expect(202);
  await eventually('the step hangs', () => isHanging);
  await expectDelete(hostileInstance, hostile);
});

// Fails without the back-off: each notification was followed by a try, with a stack in the log.
it('power request: one that keeps failing is tried less and less, logged once, and dropped when nobody repeats it', async () => {
  const { hostile } = await makeHosts();
  const log = createLineLogger();
  const worker = fixture.makeWorker({}, [], log.logger);
  await fixture.request(hostile, 'paused');
  await worker.fulfilRequests();
  let tries = 0;
  fixture.before = (method, hostId) => {
    if (method !== 'resume' || hostId !== hostile) return;
    tries += 1;
    throw new Error('its memory can not be read');
  };
  for (let count = 0; count < 10; count += 1) {
    await fixture.request(hostile, 'running');
    await worker.fulfilRequests();
  }
  expect(tries).toBe(2);
  const failures = log.lines.filter(({ message }) => message.startsWith('A power request failed'));
  expect(failures).toHaveLength(1);
  const { database } = fixture.broker;
  await database('power_requests').update({
    asked_at: database.raw(`clock_timestamp() - interval '2 minutes'`),
  });
  await worker.fulfilRequests();
  expect(await fixture.requests()).toEqual([]);
  // A client that comes later is served at once.
  fixture.before = () => undefined;
  await fixture.request(hostile, 'running');
  await worker.fulfilRequests();
  expect(await fixture.powerOf(hostile)).toBe('running');
});
