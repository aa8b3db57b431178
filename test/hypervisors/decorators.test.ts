import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { allCapabilities } from '../../src/core/hypervisor/capabilities.ts';
import { HostDisputedError } from '../../src/core/hypervisor/host-disputed-error.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Driver } from '../../src/core/hypervisor/hypervisor.ts';
import { noRegistries } from '../../src/core/hypervisor/host-spec.ts';
import { requireCapabilities } from '../../src/core/hypervisor/require-capabilities.ts';
import { builtInCatalog } from '../../src/core/catalog/built-in.ts';
import type { Catalog } from '../../src/core/catalog/catalog.ts';
import { loadCatalog } from '../../src/core/catalog/load.ts';
import type { IdlePolicy } from '../../src/core/model/host.ts';
import type { HostLocks } from '../../src/hypervisors/host-locks.ts';
import { createSimulatedHypervisor } from '../../src/hypervisors/simulated/simulated.ts';
import { withFaults } from '../../src/hypervisors/with-faults.ts';
import { withHostLocks } from '../../src/hypervisors/with-host-locks.ts';
import { type Ownership, withOwners } from '../../src/hypervisors/with-owners.ts';

const spec = {
  hostId: '0b7c1c5e-6a0f-4d5f-9a1c-3f6a2f0f8d11',
  slot: 1,
  planName: 'small',
  shape: { vcpus: 1, memoryMib: 768, diskGib: 4 },
  publishedPorts: { first: 20_000, count: 0 },
  egress: { kind: 'none' },
  registries: noRegistries,
} as const;

describe('decorators of drivers', () => {
  let stateDirectory: string;
  let driver: Driver;
  let events: string[];
  const locks: HostLocks = {
    async withLock(hostId, act) {
      events.push(`lock ${hostId.slice(0, 4)}`);
      try {
        return await act();
      } finally {
        events.push('unlock');
      }
    },
    tryWithLock: (_hostId, act) => act(),
  };

  beforeEach(async () => {
    stateDirectory = await mkdtemp(path.join(tmpdir(), 'berth-decorators-'));
    driver = createSimulatedHypervisor({ stateDirectory });
    await driver.open();
    events = [];
  });
  afterEach(async () => {
    await driver.close();
    await rm(stateDirectory, { recursive: true });
  });

  it('withHostLocks: acts on a host take its lock, by spec and by id; questions take none', async () => {
    const locked = withHostLocks(driver, locks);
    await locked.prepare(spec);
    await locked.stop(spec.hostId);
    expect(events).toEqual(['lock 0b7c', 'unlock', 'lock 0b7c', 'unlock']);
    await locked.list();
    expect(await locked.imageVersionOf(spec.hostId)).toBe(driver.imageVersion());
    expect(await locked.memoryUsage(spec.hostId)).toBeUndefined();
    expect(events).toHaveLength(4);
  });

  it('withHostLocks: the lock is released if the act fails', async () => {
    const locked = withHostLocks(driver, locks);
    await expect(locked.start(spec)).rejects.toThrow(HypervisorError);
    expect(events).toEqual(['lock 0b7c', 'unlock']);
  });

  it('withOwners: a prepare reads only records that were not read before, and forgets those of hosts that are gone', async () => {
    const slots = new Map<string, number>([[randomUUID(), 2]]);
    const reads: string[] = [];
    const owners = withOwners(driver, {
      read(hostId) {
        reads.push(hostId);
        const slot = slots.get(hostId);
        const found: Ownership | undefined =
          slot === undefined ? slot : { owner: undefined, slot, hasRun: false };
        return Promise.resolve(found);
      },
      hostIds: () => Promise.resolve([...slots.keys()]),
      slotByDisk: () => Promise.resolve(undefined),
    });
    const prepare = async (slot: number) => {
      const hostId = randomUUID();
      await owners.prepare({ ...spec, hostId, slot });
      slots.set(hostId, slot);
      return hostId;
    };
    const [first] = slots.keys();
    const second = await prepare(1);
    expect(reads).toEqual([second, first]);
    reads.length = 0;
    const third = await prepare(3);
    expect(reads).toEqual([third, second]);

    await expect(prepare(2)).rejects.toThrow(HostDisputedError);
    slots.delete(first ?? '');
    await prepare(2);
    await expect(prepare(3)).rejects.toThrow(HostDisputedError);
  });

  it('withFaults: a fault runs under the lock, and fails the call before the driver acts', async () => {
    const faulty = withFaults(driver, {
      before(method, hostId) {
        events.push(`${method} ${hostId.slice(0, 4)}`);
        if (method === 'prepare') throw new HypervisorError('broken on purpose');
      },
    });
    const locked = withHostLocks(faulty, locks);
    await expect(locked.prepare(spec)).rejects.toThrow('broken on purpose');
    expect(events).toEqual(['lock 0b7c', 'prepare 0b7c', 'unlock']);
    expect(await driver.list()).toEqual([]);
  });

  it('withFaults: drift and containers replace what the driver found', async () => {
    const drift = [{ part: 'firewall', detail: 'missing: a rule' }];
    const faulty = withFaults(driver, {
      before: () => undefined,
      drift: () => drift,
      runningContainers: () => 3,
    });
    await faulty.prepare(spec);
    // The driver is asked first: a host without a VM can't be checked, with faults or without.
    await expect(faulty.verify(spec.hostId)).rejects.toThrow(HypervisorError);
    await faulty.start(spec);
    expect(await faulty.verify(spec.hostId)).toEqual(drift);
    expect(await faulty.runningContainers(spec)).toBe(3);
    expect(await driver.verify(spec.hostId)).toEqual([]);
  });
});

describe('capabilities of a driver', () => {
  const builtIn = loadCatalog(builtInCatalog, 'built in');
  const withIdle = (idle: IdlePolicy): Catalog => ({
    ...builtIn,
    offerings: builtIn.offerings.map((offering) => ({
      ...offering,
      plans: offering.plans.map((plan) => ({ ...plan, idle })),
    })),
  });

  it('requireCapabilities: accepts the built-in catalog for a driver that can do everything', () => {
    expect(() => {
      requireCapabilities({ name: 'qemu', capabilities: allCapabilities }, builtIn);
    }).not.toThrow();
  });

  it('requireCapabilities: names the plan, the field and the remedy', () => {
    const capabilities = { ...allCapabilities, park: false, pause: false, egress: ['none' as const] };
    const refuse = (of = builtIn) => {
      requireCapabilities({ name: 'qemu', capabilities }, of);
    };
    expect(refuse).toThrow(
      'pool: { size: 4, max_size: 8 } is not supported; set pool: { size: 0, max_size: 0 }, and no pool of a plan',
    );
    expect(refuse).toThrow('plan small: idle: suspend is not supported; set idle: pause or run');
    expect(() => {
      refuse(withIdle('pause'));
    }).toThrow('plan small: idle: pause is not supported; set idle: run');
    expect(refuse).toThrow('plan small: egress: internet is not supported');
  });
});
