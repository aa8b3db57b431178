import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import supertest from 'supertest';
import type { Host, IdlePolicy } from '../../src/core/model/host.ts';
import type { SimulatedFaults } from '../../src/hypervisors/simulated/simulated.ts';
import { toHostSpec } from '../../src/core/model/host-spec.ts';
import { createIdleController } from '../../src/controllers/idle.ts';
import { channels } from '../../src/postgres/channels.ts';
import { startListener } from '../../src/postgres/listener.ts';
import { createLiveBindingsSource } from '../../src/postgres/live-bindings.ts';
import { createWorkerRecords } from '../../src/postgres/workers.ts';
import {
  bindBody,
  binding,
  hints,
  instance,
  makeTestBroker,
  operator,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import { eventually } from '../support/eventually.ts';
import { silentLogger } from '../support/logger.ts';

let broker: TestBroker;
let before: SimulatedFaults['before'] = () => undefined;
const containers = new Map<string, number>();
const cleanUp: (() => Promise<void>)[] = [];

beforeEach(async () => {
  before = () => undefined;
  broker = await makeTestBroker(inject('postgres'), {
    faults: {
      before: (act, hostId) => before(act, hostId),
      runningContainers: (hostId) => containers.get(hostId) ?? 0,
    },
  });
  broker.startWorker();
});
afterEach(async () => {
  for (const act of cleanUp.splice(0)) await act();
  await broker.stop();
});

/** @param held is told each host that is held. */
const makeKeeper = (times: { pauseAfterMs?: number; suspendAfterMs?: number } = {}, held: string[] = []) =>
  createIdleController({
    store: broker.store,
    hypervisor: {
      ...broker.hypervisor,
      withHostLock(hostId, act) {
        held.push(hostId);
        return broker.hypervisor.withHostLock(hostId, act);
      },
    },
    logger: silentLogger,
    pauseAfterMs: 0,
    suspendAfterMs: 0,
    admission: { reserveMib: 1_024, overcommit: 4 },
    ...times,
  });

let lastId = '';
async function makeHost(idle: IdlePolicy): Promise<string> {
  lastId = randomUUID();
  const made = await broker.ask('put', `${instance(lastId)}?accepts_incomplete=true`).send(provisionBody);
  expect(made.status).toBe(201);
  const [host] = (await broker.store.records.livingHosts()).slice(-1);
  if (host === undefined) throw new Error('there is no host');
  await broker.database('hosts').where({ id: host.id }).update({ idle });
  return host.id;
}
async function rowOf(hostId: string): Promise<Host> {
  const host = await broker.store.records.livingHost(hostId);
  if (host === undefined) throw new Error('the host is gone');
  return host;
}
const powerOf = async (hostId: string) => (await rowOf(hostId)).power;
const stateOf = async (hostId: string) =>
  (await broker.hypervisor.list()).find((host) => host.hostId === hostId)?.state;
const ask = (hostId: string, power: 'running' | 'paused' | 'suspended') =>
  broker.store.records.requestPower(hostId, power);
const requests = () => broker.store.records.powerRequests();
const forgetKeepers = () => broker.database('leadership_leases').update({ lease_until: new Date(0) });

/** The bindings that gateways are told of from now on. */
async function hearBindings(): Promise<string[]> {
  const told: string[] = [];
  const listener = await startListener({
    connectionString: broker.connectionString,
    listenTo: [channels.bindings],
    onLost: () => undefined,
  });
  cleanUp.push(() => listener.stop());
  listener.on(channels.bindings, (id) => told.push(id));
  return told;
}

describe('a host that nobody uses', () => {
  it('is paused once it has been idle for long enough, and not before', async () => {
    const host = await makeHost('pause');
    const patient = makeKeeper({ pauseAfterMs: 3_600_000 });
    await patient.runOnce();
    await patient.runOnce();
    expect(await powerOf(host)).toBe('running');
    await forgetKeepers();
    const keeper = makeKeeper();
    // The first look only learns what has been sent so far.
    await keeper.runOnce();
    expect(await powerOf(host)).toBe('running');
    await keeper.runOnce();
    expect(await powerOf(host)).toBe('paused');
    expect(await stateOf(host)).toBe('paused');
    // It is not dead: nobody brings it back.
    await broker.reconcile();
    expect(await broker.database('operations').where({ kind: 'restart' })).toEqual([]);
    // And it is paused only, however long.
    await keeper.runOnce();
    expect(await powerOf(host)).toBe('paused');
  });

  it('is left running where its policy says so', async () => {
    const host = await makeHost('run');
    const keeper = makeKeeper();
    for (let count = 0; count < 3; count += 1) await keeper.runOnce();
    expect(await powerOf(host)).toBe('running');
    expect(await stateOf(host)).toBe('running');
  });

  // Seen to fail where the number of containers is not looked at.
  it('is left running while a container runs on it', async () => {
    const host = await makeHost('suspend');
    containers.set(host, 1);
    const keeper = makeKeeper();
    for (let count = 0; count < 4; count += 1) await keeper.runOnce();
    expect(await powerOf(host)).toBe('running');
    containers.delete(host);
    await eventually('it is paused', async () => {
      await keeper.runOnce();
      return (await powerOf(host)) !== 'running';
    });
  });

  it('that was used since the last look is not idle', async () => {
    const host = await makeHost('pause');
    const keeper = makeKeeper();
    await keeper.runOnce();
    const { engine } = await rowOf(host);
    await fetch(`http://${engine?.host ?? ''}:${engine?.port ?? 0}/version`, {
      headers: { connection: 'close' },
    });
    await keeper.runOnce();
    expect(await powerOf(host)).toBe('running');
  });

  it('is suspended where its policy says so and it was paused for long enough', async () => {
    const host = await makeHost('suspend');
    const patient = makeKeeper({ suspendAfterMs: 3_600_000 });
    for (let count = 0; count < 4; count += 1) await patient.runOnce();
    expect(await powerOf(host)).toBe('paused');
    await forgetKeepers();
    await makeKeeper().runOnce();
    expect(await powerOf(host)).toBe('suspended');
    expect(await stateOf(host)).toBe('suspended');
    await broker.reconcile();
    expect(await stateOf(host)).toBe('suspended');
    expect((await rowOf(host)).engine).toBeDefined();
  });

  it('is woken again where somebody came while it fell asleep', async () => {
    const host = await makeHost('pause');
    const keeper = makeKeeper();
    await keeper.runOnce();
    const { engine } = await rowOf(host);
    let socket: Socket | undefined;
    before = async (act) => {
      // From a gateway that has not yet heard that it is going to sleep.
      if (act !== 'pause' || engine === undefined) return;
      socket = connect(engine.port, engine.host);
      await once(socket, 'connect');
    };
    await keeper.runOnce();
    expect(socket?.readyState).toBe('open');
    expect(await powerOf(host)).toBe('running');
    expect(await stateOf(host)).toBe('running');
    socket?.destroy();
  });

  // Seen to fail where only open connections are looked for: a container that was started meanwhile stood still.
  it('is woken again where somebody came and went while it fell asleep', async () => {
    const host = await makeHost('pause');
    const keeper = makeKeeper();
    await keeper.runOnce();
    const { engine } = await rowOf(host);
    const address = `http://${engine?.host ?? ''}:${engine?.port ?? 0}/version`;
    let came = 0;
    before = async (act) => {
      if (act !== 'pause') return;
      came += 1;
      await (await fetch(address, { headers: { connection: 'close' } })).text();
      const spec = toHostSpec(await rowOf(host));
      await eventually(
        'it is gone',
        async () => (await broker.hypervisor.traffic([spec])).get(host)?.connections === 0,
      );
    };
    await keeper.runOnce();
    expect(came).toBe(1);
    expect(await powerOf(host)).toBe('running');
    expect(await stateOf(host)).toBe('running');
  });

  // Seen to fail where each host is held before it is looked at: each time a child process is started.
  it('costs nothing while nothing is to be done with it', async () => {
    const slept = [await makeHost('pause'), await makeHost('suspend')];
    const awake = [await makeHost('run'), await makeHost('pause')];
    for (const host of slept) await ask(host, 'paused');
    const held: string[] = [];
    const keeper = makeKeeper({ pauseAfterMs: 3_600_000, suspendAfterMs: 3_600_000 }, held);
    await keeper.fulfilRequests();
    expect(held.splice(0).sort()).toEqual([...slept].sort());
    for (let count = 0; count < 3; count += 1) await keeper.runOnce();
    expect(held).toEqual([]);
    for (const host of awake) expect(await stateOf(host)).toBe('running');
    // One that has to be seen to is held, and no other.
    await broker.hypervisor.resume(toHostSpec(await rowOf(slept[0] ?? '')));
    await keeper.runOnce();
    expect(held).toEqual([slept[0]]);
    expect(await stateOf(slept[0] ?? '')).toBe('paused');
  });

  it('can be deleted while it sleeps', async () => {
    for (const power of ['paused', 'suspended'] as const) {
      const host = await makeHost('run');
      await ask(host, power);
      await makeKeeper().fulfilRequests();
      expect(await powerOf(host)).toBe(power);
      const gone = await broker.ask('delete', `${instance(lastId)}?accepts_incomplete=true&${hints}`);
      expect(gone.status).toBe(200);
      expect(await stateOf(host)).toBeUndefined();
    }
    expect(await requests()).toEqual([]);
  });
});

describe('a host that is asked for', () => {
  it('is woken, its clock set, before gateways hear that it is awake; from the disk it is connected again', async () => {
    for (const power of ['paused', 'suspended'] as const) {
      const host = await makeHost('run');
      const keeper = makeKeeper();
      expect(await ask(host, power)).toBe(true);
      await keeper.fulfilRequests();
      expect(await stateOf(host)).toBe(power);
      expect(await requests()).toEqual([]);

      const acts: string[] = [];
      before = async (act) => {
        acts.push(act);
        expect(await powerOf(host)).toBe(power);
      };
      expect(await ask(host, 'running')).toBe(true);
      await keeper.fulfilRequests();
      before = () => undefined;
      expect(acts).toEqual(
        power === 'paused' ? ['resume', 'identify'] : ['prepare', 'resume', 'identify', 'connect'],
      );
      expect(await powerOf(host)).toBe('running');
      expect(await stateOf(host)).toBe('running');
      expect(await requests()).toEqual([]);
    }
  });

  it('that is awake takes no harm', async () => {
    const host = await makeHost('run');
    await ask(host, 'running');
    await makeKeeper().fulfilRequests();
    expect(await powerOf(host)).toBe('running');
    expect(await requests()).toEqual([]);
  });

  // Seen to fail where only a change of the row is told.
  it('and is awake already is told to the gateway, which must have missed it', async () => {
    const host = await makeHost('run');
    const told = await hearBindings();
    const bound = await broker.ask('put', binding(lastId, randomUUID())).send(bindBody);
    expect(bound.status).toBe(201);
    const [{ id }] = (await broker.database('bindings').select('id')) as [{ id: string }];
    told.length = 0;
    await ask(host, 'running');
    await makeKeeper().fulfilRequests();
    await eventually('the binding is told', () => told.includes(id));
  });

  // Seen to fail where telling is a statement of its own: a worker that is killed before it leaves its gateways wrong.
  it('is on record as awake only together with what tells gateways so', async () => {
    const host = await makeHost('run');
    const { records } = broker.store;
    expect(await records.setHostPower(host, 'running', 'paused')).toBe(true);
    await broker.database.raw('ALTER TABLE bindings RENAME TO bindings_away');
    await expect(records.setHostPower(host, 'paused', 'running')).rejects.toThrow('bindings');
    await broker.database.raw('ALTER TABLE bindings_away RENAME TO bindings');
    expect(await powerOf(host)).toBe('paused');
    const told = await hearBindings();
    await broker.ask('put', binding(lastId, randomUUID())).send(bindBody);
    const [{ id }] = (await broker.database('bindings').select('id')) as [{ id: string }];
    told.length = 0;
    expect(await records.setHostPower(host, 'paused', 'running')).toBe(true);
    await eventually('the binding is told', () => told.includes(id));
    expect(await records.setHostPower(host, 'paused', 'running')).toBe(false);
  });

  it('goes on being asked for while it can not be woken', async () => {
    const host = await makeHost('run');
    const keeper = makeKeeper();
    await ask(host, 'paused');
    await keeper.fulfilRequests();
    before = (act) => {
      if (act === 'resume') throw new Error('not now');
    };
    await ask(host, 'running');
    await keeper.fulfilRequests();
    expect(await powerOf(host)).toBe('paused');
    expect(await requests()).toHaveLength(1);
    before = () => undefined;
    await keeper.fulfilRequests();
    expect(await powerOf(host)).toBe('running');
  });

  // Seen to fail without single flight: each request had every host that was asked for held, 36 times in all.
  it('is seen to once, however many others are asked for at the same time', async () => {
    const hosts: string[] = [];
    while (hosts.length < 6) hosts.push(await makeHost('run'));
    for (const host of hosts) await ask(host, 'paused');
    const held: string[] = [];
    const keeper = makeKeeper({}, held);
    await keeper.fulfilRequests();
    held.length = 0;
    await Promise.all(
      hosts.map(async (host) => {
        await ask(host, 'running');
        await keeper.fulfilRequests();
      }),
    );
    expect(held.sort()).toEqual([...hosts].sort());
    for (const host of hosts) expect(await powerOf(host)).toBe('running');
    expect(await requests()).toEqual([]);
  });

  // Seen to fail where a request is read before its host is held: it was paused though it was wanted by then.
  it('is what it was last asked to be', async () => {
    const host = await makeHost('run');
    const acts: string[] = [];
    before = (act) => void acts.push(act);
    const held: string[] = [];
    const keeper = makeKeeper({}, held);
    let letGo: () => void = () => undefined;
    let isHeld = false;
    const holding = broker.hypervisor.withHostLock(host, () => {
      isHeld = true;
      return new Promise<void>((resolve) => {
        letGo = resolve;
      });
    });
    await eventually('the host is held', () => isHeld);
    await ask(host, 'paused');
    const serving = keeper.fulfilRequests();
    await eventually('the host is waited for', () => held.includes(host));
    await ask(host, 'running');
    letGo();
    await holding;
    await serving;
    expect(acts).not.toContain('pause');
    expect(await powerOf(host)).toBe('running');
    expect(await requests()).toEqual([]);
  });

  it('by an operator, over the management API; others are told that there is none', async () => {
    const host = await makeHost('run');
    const put = (id: string, power: string) =>
      supertest(broker.mgmt)
        .put(`/mgmt/hosts/${id}/power/${power}`)
        .auth(operator.username, operator.password);
    expect((await put(host, 'paused')).status).toBe(202);
    await makeKeeper().fulfilRequests();
    expect(await powerOf(host)).toBe('paused');
    const wrong = await put(host, 'off');
    expect(wrong.status).toBe(400);
    expect((wrong.body as { description: string }).description).toContain('power is "off"');
    expect((await put(randomUUID(), 'paused')).status).toBe(404);
    expect((await put("'; DROP TABLE hosts", 'paused')).status).toBe(404);
  });

  it('waits for an operation that is in progress on it', async () => {
    const host = await makeHost('run');
    await ask(host, 'paused');
    const keeper = makeKeeper();
    await keeper.fulfilRequests();
    const { instanceId } = await rowOf(host);
    const operation = {
      id: randomUUID(),
      kind: 'restart',
      instanceId,
      step: 'prepare',
      description: '',
    } as const;
    await broker.database('operations').insert({
      id: operation.id,
      kind: operation.kind,
      instance_id: instanceId,
      state: 'in progress',
      step: 'prepare',
      description: '',
      deadline: new Date(Date.now() + 60_000),
      run_after: new Date(Date.now() + 3_600_000),
    });
    await ask(host, 'running');
    await keeper.fulfilRequests();
    expect(await powerOf(host)).toBe('paused');
    expect(await requests()).toHaveLength(1);
    // The operation brings it up, and it is awake.
    await broker
      .database('operations')
      .where({ id: operation.id })
      .update({ run_after: new Date(0) });
    await eventually('the host is on', async () => (await powerOf(host)) === 'running');
    expect(await stateOf(host)).toBe('running');
    await eventually('the operation has ended', async () => {
      await keeper.fulfilRequests();
      return (await requests()).length === 0;
    });
  });
});

describe('a host whose memory was given back', () => {
  const machine = (memoryAvailableMib: number) =>
    createWorkerRecords(broker.database).report({
      name: 'w',
      hypervisor: 'qemu',
      templates: [],
      imageVersion: '1.0.0',
      memoryAvailableMib,
      memoryTotalMib: 100_000,
    });
  const metrics = async () =>
    (await supertest(broker.mgmt).get('/mgmt/metrics').auth(operator.username, operator.password)).text;

  // Seen to fail where a wake asks for no room.
  it('is not woken where the machine has no room for it, which gateways are told at once; and is once it has', async () => {
    const host = await makeHost('run');
    await ask(host, 'suspended');
    const keeper = makeKeeper();
    await keeper.fulfilRequests();
    const bound = await broker.ask('put', binding(lastId, randomUUID())).send(bindBody);
    expect(bound.status).toBe(201);
    const [{ id }] = (await broker.database('bindings').select('id')) as [{ id: string }];
    const source = createLiveBindingsSource({ connectionString: broker.urls.gateway, connections: () => 0 });
    const told: string[] = [];
    await source.open({ changed: (bindingId) => told.push(bindingId), lost: () => undefined });
    cleanUp.push(() => source.close());
    const refusedAt = async () => (await source.read([id]))[0]?.wakeRefusedAt;

    // Of 768 MiB a quarter is reckoned to be taken.
    await machine(1_024 + 191);
    await source.wake(host);
    await keeper.fulfilRequests();
    expect(await stateOf(host)).toBe('suspended');
    expect(await powerOf(host)).toBe('suspended');
    expect(await requests()).toEqual([]);
    await eventually('the gateway is told', () => told.includes(id));
    expect(await refusedAt()).toBeInstanceOf(Date);
    expect(await metrics()).toContain('berth_hosts_wake_refused 1');

    await machine(1_024 + 192);
    await source.wake(host);
    await keeper.fulfilRequests();
    expect(await powerOf(host)).toBe('running');
    expect(await refusedAt()).toBeUndefined();
    expect(await metrics()).toContain('berth_hosts_wake_refused 0');
  });

  // Seen to fail where each wake is reckoned alone.
  it('has no room that others are just taking', async () => {
    const hosts = [await makeHost('run'), await makeHost('run'), await makeHost('run')];
    for (const host of hosts) await ask(host, 'suspended');
    const keeper = makeKeeper();
    await keeper.fulfilRequests();
    await machine(1_024 + 2 * 192);
    for (const host of hosts) await ask(host, 'running');
    await keeper.fulfilRequests();
    const powers = await Promise.all(hosts.map(powerOf));
    expect(powers.sort()).toEqual(['running', 'running', 'suspended']);
  });

  it('is woken from memory whatever the machine has left', async () => {
    const host = await makeHost('run');
    await ask(host, 'paused');
    const keeper = makeKeeper();
    await keeper.fulfilRequests();
    await machine(0);
    await ask(host, 'running');
    await keeper.fulfilRequests();
    expect(await powerOf(host)).toBe('running');
  });
});

describe('a worker that is killed', () => {
  /** Runs a keeper's act up to this act on the host, where it dies. */
  async function killAt(act: string, run: () => Promise<void>): Promise<void> {
    let isKilled = false;
    before = (at) => {
      if (at === act) isKilled = true;
      // Nothing that it would do after this is done: it is dead.
      if (isKilled) throw new Error('killed');
    };
    const { records } = broker.store;
    const setHostPower = records.setHostPower.bind(records);
    records.setHostPower = (...args) =>
      isKilled ? Promise.reject(new Error('killed')) : setHostPower(...args);
    await run();
    records.setHostPower = setHostPower;
    before = () => undefined;
    expect(isKilled).toBe(true);
    await forgetKeepers();
  }

  it('before it has paused a host leaves one that the next worker pauses, or wakes', async () => {
    const host = await makeHost('pause');
    await killAt('pause', async () => {
      const keeper = makeKeeper();
      await keeper.runOnce();
      await keeper.runOnce();
    });
    expect(await powerOf(host)).toBe('paused');
    expect(await stateOf(host)).toBe('running');
    await makeKeeper().runOnce();
    expect(await stateOf(host)).toBe('paused');
    await ask(host, 'running');
    await makeKeeper().fulfilRequests();
    expect(await stateOf(host)).toBe('running');
    expect(await powerOf(host)).toBe('running');
  });

  it('before it has suspended a host leaves one that the next worker suspends, and loses no memory', async () => {
    const host = await makeHost('suspend');
    const { engine } = await rowOf(host);
    await killAt('suspend', async () => {
      const keeper = makeKeeper();
      for (let count = 0; count < 3; count += 1) await keeper.runOnce();
    });
    expect(await powerOf(host)).toBe('suspended');
    expect(await stateOf(host)).toBe('paused');
    await makeKeeper().runOnce();
    expect(await stateOf(host)).toBe('suspended');
    await ask(host, 'running');
    await makeKeeper().fulfilRequests();
    expect(await stateOf(host)).toBe('running');
    expect((await rowOf(host)).engine).toEqual(engine);
  });

  it('in the middle of waking a host leaves one that is woken', async () => {
    for (const act of ['resume', 'identify']) {
      const host = await makeHost('run');
      await ask(host, 'paused');
      await makeKeeper().fulfilRequests();
      await ask(host, 'running');
      await killAt(act, () => makeKeeper().fulfilRequests());
      expect(await powerOf(host)).toBe('paused');
      expect(await requests()).toHaveLength(1);
      await makeKeeper().fulfilRequests();
      expect(await powerOf(host)).toBe('running');
      expect(await stateOf(host)).toBe('running');
    }
  });

  it('leaves hosts to one successor at a time', async () => {
    const host = await makeHost('pause');
    await makeKeeper().runOnce();
    const second = makeKeeper();
    await second.runOnce();
    await second.runOnce();
    expect(await powerOf(host)).toBe('running');
    await forgetKeepers();
    await second.runOnce();
    await second.runOnce();
    expect(await powerOf(host)).toBe('paused');
  });
});
