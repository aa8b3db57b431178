import { expect, it } from 'vitest';
import type { HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Suite } from './suite.ts';

export function describeLifecycle(suite: Suite): void {
  const { newSpec, bringUp, stateOf, identityOf, itNeeds } = suite;
  const residue = (hostId: string) => suite.harness.residue(hostId);

  itNeeds(
    ['templates'],
    'lifecycle: a host is made, stopped, started with its data, and destroyed without residue',
    async () => {
      const { driver } = suite;
      const spec = newSpec();
      expect(await stateOf(spec)).toBeUndefined();

      await driver.prepare(spec);
      expect(await stateOf(spec)).toBe('stopped');
      await driver.start(spec);
      expect(await stateOf(spec)).toBe('running');
      expect(await driver.startedFrom(spec.hostId)).toBe('template');
      const address = await bringUp(spec);
      const before = await identityOf(address);
      await suite.createVolume(address, 'kept');

      await driver.stop(spec.hostId);
      expect(await stateOf(spec)).toBe('stopped');
      await suite.expectUnreachable(address);

      await driver.start(spec);
      // The disk of a host that has run no longer fits the template's memory.
      expect(await driver.startedFrom(spec.hostId)).toBe('boot');
      const again = await bringUp(spec);
      expect(await identityOf(again)).toMatchObject({ ID: before.ID, Name: before.Name });
      expect(await suite.volumes(again)).toContain('"kept"');

      await driver.destroy(spec.hostId);
      expect(await stateOf(spec)).toBeUndefined();
      await suite.expectUnreachable(again);
      expect(await residue(spec.hostId)).toEqual([]);
    },
  );

  itNeeds(
    ['diskGrowth', 'imageUpgrade', 'publishedPorts'],
    'reshape: a stopped host gets the shape and image of its new spec, and keeps its data',
    async () => {
      const { driver } = suite;
      const spec = newSpec();
      await bringUp(spec);
      const address = await driver.connect(spec);
      await suite.createVolume(address, 'kept');
      const { vcpus, memoryMib, diskGib } = spec.shape;
      const larger: HostSpec = {
        ...spec,
        shape: { vcpus: vcpus + 1, memoryMib: memoryMib + 256, diskGib: diskGib + 2 },
        publishedPorts: { ...spec.publishedPorts, count: spec.publishedPorts.count - 1 },
        imageVersion: driver.imageVersion() ?? '',
      };
      await expect(driver.reshape(larger)).rejects.toThrow('it must be stopped first');
      await driver.stop(spec.hostId);
      // Twice, as after a kill in the middle.
      await driver.reshape(larger);
      await driver.reshape(larger);
      const again = await bringUp(larger);
      expect(await driver.imageVersionOf(spec.hostId)).toBe(driver.imageVersion());
      const size = await suite.sizeOf(again);
      expect(size.vcpus).toBe(vcpus + 1);
      expect(size.memoryMib).toBeGreaterThan(memoryMib);
      expect(await suite.volumes(again)).toContain('"kept"');
      expect(await driver.verify(spec.hostId)).toEqual([]);

      // And back, as the rollback of a failed update does: the disk stays large.
      await driver.stop(spec.hostId);
      await driver.reshape(spec);
      const back = await bringUp(spec);
      expect(await suite.sizeOf(back)).toMatchObject({ vcpus });
      expect(await suite.volumes(back)).toContain('"kept"');
    },
  );

  it('reshape: refuses an image that is not installed, and leaves the host as it was', async () => {
    const { driver } = suite;
    const spec = newSpec();
    await driver.prepare(spec);
    const before = await driver.imageVersionOf(spec.hostId);
    await expect(driver.reshape({ ...spec, imageVersion: '9.9.9+none' })).rejects.toThrow('9.9.9+none');
    expect(await driver.imageVersionOf(spec.hostId)).toBe(before);
  });

  itNeeds(['templates'], 'idempotence: a second call of each method changes nothing', async () => {
    const { driver } = suite;
    const spec = newSpec();
    await driver.prepare(spec);
    await driver.prepare(spec);
    await driver.start(spec);
    await driver.start(spec);
    await suite.waitFor('the guest has its identity', () => driver.identify(spec));
    expect(await driver.identify(spec)).toBe(true);
    const address = await driver.connect(spec);
    expect(await driver.connect(spec)).toEqual(address);
    await suite.waitFor('the engine answers', () => driver.engineAnswers(spec));
    const identity = await identityOf(address);

    // A resumed operation runs all of its steps again, on a host that already exists.
    expect(await bringUp(spec)).toEqual(address);
    expect(await identityOf(address)).toMatchObject({ ID: identity.ID, Name: identity.Name });
    expect(await driver.startedFrom(spec.hostId)).toBe('template');

    await driver.stop(spec.hostId);
    await driver.stop(spec.hostId);
    expect(await stateOf(spec)).toBe('stopped');
    await driver.prepare(spec);
    expect(await stateOf(spec)).toBe('stopped');
    await driver.destroy(spec.hostId);
    await driver.destroy(spec.hostId);
    expect(await residue(spec.hostId)).toEqual([]);

    await suite.makeTemplate();
    expect(await driver.hasTemplate(suite.harness.plan)).toBe(true);
  });

  it('stop and destroy: do nothing for a host that does not exist', async () => {
    const { driver } = suite;
    const { hostId } = newSpec();
    await driver.stop(hostId);
    await driver.destroy(hostId);
    expect(await driver.memoryUsage(hostId)).toBeUndefined();
    expect(await residue(hostId)).toEqual([]);
  });

  it('start: refuses a host that is not prepared, and leaves nothing of it', async () => {
    const spec = newSpec();
    await expect(suite.driver.start(spec)).rejects.toThrow(HypervisorError);
    expect(await stateOf(spec)).toBeUndefined();
    expect(await residue(spec.hostId)).toEqual([]);
  });

  // Fails if the driver learns of the plans only when the template is made: a host of a plan that says `never` was restored.
  it('start: boots a host of a plan that is not restored, also right after a restart of the worker', async () => {
    await suite.restartWorker();
    const { driver } = suite;
    const spec = { ...newSpec(), planName: 'without-template' };
    expect(await driver.hasTemplate(spec)).toBe(false);
    await driver.prepare(spec);
    await driver.start(spec);
    expect(await driver.startedFrom(spec.hostId)).toBe('boot');
  });

  it('list: contains every host that exists, and no other', async () => {
    const { driver } = suite;
    const spec = newSpec();
    await driver.prepare(spec);
    const others = (await driver.list()).filter(({ hostId }) => hostId !== spec.hostId);
    expect(others).toEqual([]);
    expect(await residue(spec.hostId)).not.toEqual([]);
    await driver.destroy(spec.hostId);
    expect(await driver.list()).toEqual([]);
    expect(await residue(spec.hostId)).toEqual([]);
  });

  it('lifecycle: hosts made at the same time have different addresses and identities', async () => {
    const both = [newSpec(), newSpec()];
    const addresses = await Promise.all(both.map(bringUp));
    const identities = await Promise.all(addresses.map(identityOf));

    const distinct = (values: readonly string[]) => {
      expect(new Set(values).size).toBe(values.length);
    };
    distinct(addresses.map(({ host, port }) => `${host}:${port}`));
    distinct(identities.map(({ ID }) => ID));
    distinct(identities.map(({ Name }) => Name));
    // Destroying one does not affect the other.
    const [gone, kept] = both;
    if (gone === undefined || kept === undefined) throw new Error('two hosts were made');
    await suite.driver.destroy(gone.hostId);
    expect(await suite.driver.engineAnswers(kept)).toBe(true);
    expect(await stateOf(kept)).toBe('running');
  });
}
