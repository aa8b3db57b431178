import { expect, it } from 'vitest';
import type { HostShape, HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import { unowned } from './owners.ts';
import type { Suite } from './suite.ts';

const parts = {
  vcpus: { vcpus: 1 },
  memory: { memoryMib: 256 },
  disk: { diskGib: 2 },
} as const;

function add(spec: HostSpec, more: Partial<HostShape>): HostSpec {
  const { vcpus, memoryMib, diskGib } = spec.shape;
  return {
    ...spec,
    shape: {
      vcpus: vcpus + (more.vcpus ?? 0),
      memoryMib: memoryMib + (more.memoryMib ?? 0),
      diskGib: diskGib + (more.diskGib ?? 0),
    },
  };
}

/** A driver adds what its `liveGrowth` names, and refuses the rest. */
export function describeGrowth(suite: Suite): void {
  const { newSpec, bringUp, stateOf } = suite;
  const grows = () => suite.driver.capabilities.liveGrowth;
  /** What this driver can add, at once. */
  const addable = () =>
    Object.entries(parts)
      .filter(([part]) => grows()[part as keyof typeof parts])
      .reduce<Partial<HostShape>>((all, [, more]) => ({ ...all, ...more }), {});

  suite.itNeeds(
    ['park'],
    'start: a parked host gets what its owner has more than the pool, also if it is started again',
    async () => {
      if (Object.values(grows()).includes(false)) return;
      const owned = add(newSpec(), addable());
      const parked = unowned({ ...owned, shape: newSpec().shape });
      await suite.driver.prepare(parked);
      expect(await suite.driver.park(parked)).toBe(true);
      expect(await suite.driver.hasShape(owned)).toBe(false);

      await suite.driver.start(owned);
      await suite.restartWorker();
      const address = await bringUp(owned);
      expect(await suite.driver.startedFrom(owned.hostId)).toBe('pool');
      expect(await suite.driver.hasShape(owned)).toBe(true);
      const { vcpus, memoryMib } = await suite.sizeOf(address);
      expect(vcpus).toBe(owned.shape.vcpus);
      expect(memoryMib).toBeGreaterThan(parked.shape.memoryMib);
      expect(await suite.driver.verify(owned.hostId)).toEqual([]);
    },
  );

  it('grow: adds what the driver states to a running host, which keeps its VM, data and address', async () => {
    const { driver } = suite;
    const spec = newSpec();
    const address = await bringUp(spec);
    await suite.createVolume(address, 'kept');
    const before = await suite.identityOf(address);
    const larger = add(spec, addable());
    expect(await driver.hasShape(spec)).toBe(true);

    // Twice, as after a kill in the middle; also if there is nothing to add.
    for (let times = 0; times < 2; times += 1)
      await suite.waitFor('the guest uses everything', () => driver.grow(larger));
    expect(await driver.hasShape(larger)).toBe(true);
    const { vcpus, memoryMib } = await suite.sizeOf(address);
    expect(vcpus).toBe(larger.shape.vcpus);
    if (grows().memory) expect(memoryMib).toBeGreaterThan(spec.shape.memoryMib);
    expect(await suite.identityOf(address)).toMatchObject({ ID: before.ID, Name: before.Name });
    expect(await suite.volumes(address)).toContain('"kept"');
    expect(await bringUp(larger)).toEqual(address);
    expect(await driver.verify(spec.hostId)).toEqual([]);

    await suite.restartWorker();
    expect(await suite.driver.hasShape(larger)).toBe(true);
    await suite.driver.stop(spec.hostId);
    expect(await suite.driver.hasShape(larger)).toBe(true);
    const again = await bringUp(larger);
    expect((await suite.sizeOf(again)).vcpus).toBe(larger.shape.vcpus);
  });

  it('grow: refuses a host that does not run, less than it has, and what the driver does not state', async () => {
    const { driver } = suite;
    const spec = newSpec();
    const refuses = (next: HostSpec) => expect(driver.grow(next)).rejects.toThrow(HypervisorError);
    await driver.prepare(spec);
    await refuses(add(spec, addable()));
    await bringUp(spec);
    await refuses(add(spec, { memoryMib: -128 }));
    for (const [part, more] of Object.entries(parts)) {
      if (!grows()[part as keyof typeof parts]) await refuses(add(spec, more));
    }
    expect(await stateOf(spec)).toBe('running');
    expect(await driver.hasShape(spec)).toBe(true);
    expect(await driver.hasShape(add(spec, parts.vcpus))).toBe(false);
    expect(await driver.hasShape(add(spec, parts.memory))).toBe(false);
    expect(await driver.hasShape(add(spec, parts.disk))).toBe(false);
    expect(await driver.hasShape(add(spec, { diskGib: -1 }))).toBe(true);
  });
}
