import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, inject } from 'vitest';
import { createIdleController } from '../../../src/controllers/idle.ts';
import { createPowerRequestController } from '../../../src/controllers/power-requests.ts';
import { createPowerSwitch } from '../../../src/controllers/power-switch.ts';
import { memoryLost, restartHost } from '../../../src/controllers/restart-host.ts';
import type { Host, IdlePolicy } from '../../../src/core/model/host.ts';
import type { MethodDeadlines } from '../../../src/hypervisors/with-deadlines.ts';
import type { Faults } from '../../../src/hypervisors/with-faults.ts';
import type { Logger } from '../../../src/lib/logger.ts';
import { channels } from '../../../src/postgres/channels.ts';
import { startListener } from '../../../src/postgres/listener.ts';
import { instance, makeTestBroker, provisionBody, type TestBroker } from '../../support/broker.ts';
import { silentLogger } from '../../support/logger.ts';

/** A broker with a lease loop for each test, and what tests of the hosts' power need. Call it once per file. */
export function createPowerFixture({ deadlines }: { deadlines?: MethodDeadlines } = {}) {
  let broker: TestBroker;
  let before: NonNullable<Faults['before']> = () => undefined;
  let lastInstance = '';
  const containers = new Map<string, number>();
  const cleanUp: (() => Promise<void>)[] = [];

  beforeEach(async () => {
    before = () => undefined;
    broker = await makeTestBroker(inject('postgres'), {
      ...(deadlines && { deadlines }),
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

  async function rowOf(hostId: string): Promise<Host> {
    const host = await broker.store.records.livingHost(hostId);
    if (host === undefined) throw new Error('the host is gone');
    return host;
  }

  return {
    get broker() {
      return broker;
    },
    /** OSB id of the instance that `makeHost` has created last. */
    get lastInstance() {
      return lastInstance;
    },
    /** Number of running containers by host. */
    containers,
    /** Called after the test, before the broker stops. */
    cleanUp,
    /** Runs before each act of the hypervisor. */
    set before(callback: NonNullable<Faults['before']>) {
      before = callback;
    },
    /**
     * The controllers of a worker that deal with power.
     * @param locked is extended by each host that is locked.
     */
    makeWorker(
      times: { pauseAfterMs?: number; suspendAfterMs?: number } = {},
      locked: string[] = [],
      logger: Logger = silentLogger,
    ) {
      const { records } = broker.store;
      const hypervisor: typeof broker.hypervisor = {
        ...broker.hypervisor,
        withHostLock(hostId, act) {
          locked.push(hostId);
          return broker.hypervisor.withHostLock(hostId, act);
        },
      };
      const { store } = broker;
      const restart = (host: Host) => restartHost({ store, logger }, host, memoryLost);
      const power = createPowerSwitch({ records, hypervisor, logger, restart });
      const deps = { records, hypervisor, logger, power };
      const idle = createIdleController({ ...deps, pauseAfterMs: 0, suspendAfterMs: 0, ...times });
      const requests = createPowerRequestController({
        ...deps,
        admission: { reserveMib: 1_024, overcommit: 4 },
      });
      return { checkIdle: () => idle.runOnce(), fulfilRequests: () => requests.runOnce() };
    },
    async makeHost(idle: IdlePolicy): Promise<string> {
      lastInstance = randomUUID();
      const made = await broker
        .ask('put', `${instance(lastInstance)}?accepts_incomplete=true`)
        .send(provisionBody);
      expect(made.status).toBe(201);
      const [host] = (await broker.store.records.livingHosts()).slice(-1);
      if (host === undefined) throw new Error('there is no host');
      await broker.database('hosts').where({ id: host.id }).update({ idle });
      return host.id;
    },
    rowOf,
    /** The recorded power. */
    powerOf: async (hostId: string) => (await rowOf(hostId)).power,
    /** The state that the hypervisor reports; undefined: it does not know the host. */
    stateOf: async (hostId: string) =>
      (await broker.hypervisor.list()).find((host) => host.hostId === hostId)?.state,
    request: (hostId: string, power: 'running' | 'paused' | 'suspended') =>
      broker.store.records.requestPower(hostId, power),
    requests: () => broker.store.records.powerRequests(),
    expireLeadership: () => broker.database('leadership_leases').update({ lease_until: new Date(0) }),
    /** The ids of bindings that gateways are notified of from now on. */
    async recordNotifications(): Promise<string[]> {
      const notified: string[] = [];
      const listener = await startListener({
        connectionString: broker.connectionString,
        listenTo: [channels.bindings],
        onLost: () => undefined,
      });
      cleanUp.push(() => listener.stop());
      listener.on(channels.bindings, (id) => notified.push(id));
      return notified;
    },
  };
}
