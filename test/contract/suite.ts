import { randomUUID } from 'node:crypto';
import { expect, it } from 'vitest';
import type { Capabilities } from '../../src/core/hypervisor/capabilities.ts';
import type { HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import type { Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import type { EngineAddress } from '../../src/core/hypervisor/network.ts';
import { eventually } from '../support/eventually.ts';
import type { HypervisorHarness, Patience } from './harness.ts';

/** What the tests of one driver share. */
export interface Suite {
  readonly patience: Patience;
  readonly harness: HypervisorHarness;
  readonly driver: Hypervisor;
  readonly open: () => Promise<void>;
  readonly close: () => Promise<void>;
  /** Another driver object over the same state, as after a restart of the worker. */
  readonly restartWorker: () => Promise<void>;
  readonly makeTemplate: () => Promise<void>;
  /** Spec of a new host of a new owner, which is destroyed after the test. */
  readonly newSpec: () => HostSpec;
  readonly destroyHosts: () => Promise<void>;
  readonly waitFor: (what: string, ask: () => Promise<boolean>) => Promise<unknown>;
  /** Makes or restarts a host with the driver calls of an operation's steps (registries left out). */
  readonly bringUp: (spec: HostSpec) => Promise<EngineAddress>;
  readonly stateOf: (spec: HostSpec) => Promise<string | undefined>;
  readonly identityOf: (address: EngineAddress) => Promise<{ ID: string; Name: string }>;
  /** What the engine says that it has. */
  readonly sizeOf: (address: EngineAddress) => Promise<{ vcpus: number; memoryMib: number }>;
  readonly createVolume: (address: EngineAddress, name: string) => Promise<void>;
  readonly volumes: (address: EngineAddress) => Promise<string>;
  readonly expectUnreachable: (address: EngineAddress) => Promise<void>;
  readonly expectStopped: (spec: HostSpec) => Promise<unknown>;
  /** A test that is skipped if the driver does not state these capabilities. */
  readonly itNeeds: (
    capabilities: readonly (keyof Capabilities)[],
    name: string,
    test: () => Promise<void>,
  ) => void;
}

export function createSuite(patience: Patience, makeHarness: () => Promise<HypervisorHarness>): Suite {
  let harness: HypervisorHarness | undefined;
  let driver: Hypervisor | undefined;
  let specs: HostSpec[] = [];
  const required = <T>(value: T | undefined): T => {
    if (value === undefined) throw new Error('the suite is not open');
    return value;
  };
  const suite: Suite = {
    patience,
    get harness() {
      return required(harness);
    },
    get driver() {
      return required(driver);
    },

    async open() {
      harness = await makeHarness();
      driver = await harness.createDriver();
      await driver.open();
      if (driver.capabilities.templates) await suite.makeTemplate();
    },

    async close() {
      await suite.driver.close();
      await suite.harness.close();
    },

    async restartWorker() {
      await suite.driver.close();
      driver = await suite.harness.createDriver();
      await driver.open();
    },

    makeTemplate: () => suite.driver.makeTemplate(() => undefined, AbortSignal.timeout(patience.templateMs)),

    newSpec() {
      const spec = { ...suite.harness.newSpec(), owner: randomUUID() };
      specs.push(spec);
      return spec;
    },

    async destroyHosts() {
      for (const { hostId } of specs) await suite.driver.destroy(hostId);
      specs = [];
    },

    waitFor: (what, ask) => eventually(what, ask, { deadlineMs: patience.bootMs, everyMs: 50 }),

    async bringUp(spec) {
      await suite.driver.prepare(spec);
      await suite.driver.start(spec);
      await suite.waitFor('the guest has its identity', () => suite.driver.identify(spec));
      const address = await suite.driver.connect(spec);
      await suite.waitFor('the engine answers', () => suite.driver.engineAnswers(spec));
      return address;
    },

    stateOf: async ({ hostId }) => (await suite.driver.list()).find((host) => host.hostId === hostId)?.state,

    async identityOf(address) {
      const { status, body } = await suite.harness.askEngine(address, { method: 'GET', path: '/info' });
      expect(status).toBe(200);
      return JSON.parse(body) as { ID: string; Name: string };
    },

    async sizeOf(address) {
      const { body } = await suite.harness.askEngine(address, { method: 'GET', path: '/info' });
      const { NCPU, MemTotal } = JSON.parse(body) as { NCPU: number; MemTotal: number };
      return { vcpus: NCPU, memoryMib: MemTotal / 1024 ** 2 };
    },

    async createVolume(address, name) {
      const { status } = await suite.harness.askEngine(address, {
        method: 'POST',
        path: '/volumes/create',
        body: JSON.stringify({ Name: name }),
      });
      expect(status).toBe(201);
    },

    volumes: async (address) =>
      (await suite.harness.askEngine(address, { method: 'GET', path: '/volumes' })).body,

    expectUnreachable: (address) =>
      expect(suite.harness.askEngine(address, { method: 'GET', path: '/_ping' })).rejects.toThrow(),

    expectStopped: (spec) =>
      eventually('the host is listed as stopped', async () => (await suite.stateOf(spec)) === 'stopped'),

    itNeeds(capabilities, name, test) {
      it(name, async ({ skip }) => {
        const lacking = capabilities.filter((one) => suite.driver.capabilities[one] === false);
        if (lacking.length > 0) skip(`the driver does not state ${lacking.join(', ')}`);
        await test();
      });
    },
  };
  return suite;
}
