import { expect } from 'vitest';
import type { HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import { MemoryLostError } from '../../src/core/hypervisor/memory-lost-error.ts';
import { eventually } from '../support/eventually.ts';
import type { Suite } from './suite.ts';

export function describePower(suite: Suite): void {
  const { newSpec, bringUp, stateOf, identityOf, itNeeds } = suite;

  itNeeds(
    ['pause'],
    'pause: the engine answers nobody until the host is resumed, and nothing is lost',
    async () => {
      const { driver } = suite;
      const spec = newSpec();
      await expect(driver.pause(spec.hostId)).rejects.toThrow(HypervisorError);
      const address = await bringUp(spec);
      const before = await identityOf(address);
      await driver.pause(spec.hostId);
      await driver.pause(spec.hostId);
      expect(await stateOf(spec)).toBe('paused');
      expect(await driver.identify(spec)).toBe(false);
      await suite.expectUnreachable(address);

      await driver.resume(spec);
      await driver.resume(spec);
      expect(await stateOf(spec)).toBe('running');
      await suite.waitFor('the guest has its clock', () => driver.identify(spec));
      expect(await identityOf(address)).toMatchObject({ ID: before.ID, Name: before.Name });

      // Halted, it counts as running: only haltOf tells.
      expect(await driver.haltOf(spec.hostId)).toBeUndefined();
      await driver.halt(spec.hostId);
      expect([await stateOf(spec), await driver.haltOf(spec.hostId)]).toEqual(['running', 'paused']);
      await suite.expectUnreachable(address);
      await driver.resume(spec);
      expect(await driver.haltOf(spec.hostId)).toBeUndefined();
      await suite.waitFor('the guest has its clock again', () => driver.identify(spec));

      // An operation that finds the host paused brings it up with the same steps as any other.
      await driver.pause(spec.hostId);
      expect(await bringUp(spec)).toEqual(address);
      expect(await stateOf(spec)).toBe('running');
      await driver.pause(spec.hostId);
      await driver.stop(spec.hostId);
      expect(await stateOf(spec)).toBe('stopped');
      await expect(driver.resume(spec)).rejects.toThrow(HypervisorError);
    },
  );

  itNeeds(
    ['pause', 'suspend', 'templates'],
    'suspend: the host continues from disk, also after a restart of the worker',
    async () => {
      const spec = newSpec();
      const address = await bringUp(spec);
      const before = await identityOf(address);
      await suite.driver.pause(spec.hostId);
      await suite.driver.suspend(spec.hostId);
      await suite.driver.suspend(spec.hostId);
      expect(await stateOf(spec)).toBe('suspended');
      expect(await suite.driver.memoryUsage(spec.hostId)).toBeUndefined();
      await suite.expectUnreachable(address);

      await suite.restartWorker();
      const { driver } = suite;
      expect(await stateOf(spec)).toBe('suspended');
      // It is resumed, not booted.
      expect(await bringUp(spec)).toEqual(address);
      expect(await driver.startedFrom(spec.hostId)).toBe('template');
      expect(await identityOf(address)).toMatchObject({ ID: before.ID, Name: before.Name });

      await driver.suspend(spec.hostId);
      await driver.resume(spec);
      expect(await stateOf(spec)).toBe('running');
      await driver.suspend(spec.hostId);
      await driver.destroy(spec.hostId);
      expect(await suite.harness.residue(spec.hostId)).toEqual([]);
    },
  );

  // Fails without the fallback: the host could be neither woken nor stopped, updated or deleted.
  itNeeds(
    ['suspend', 'templates'],
    'suspend: a host whose memory is unusable is stopped when it is woken, and boots from its disk with its data',
    async () => {
      const { driver, harness } = suite;
      const lost = (spec: HostSpec) =>
        driver.list().then((hosts) => hosts.find(({ hostId }) => hostId === spec.hostId)?.memoryLostAt);
      const [first, ...others] = harness.unusableMemory.map((unusable) => ({ ...unusable, spec: newSpec() }));
      if (first === undefined) expect.fail('the harness knows no unusable memory');
      for (const { name, leave, spec } of [first, ...others]) {
        if (spec === first.spec) {
          await suite.createVolume(await bringUp(spec), 'kept');
          // So that the volume is on its disk: as after a power cut, the content of its memory is lost.
          await driver.stop(spec.hostId);
        }
        await driver.prepare(spec);
        await driver.start(spec);
        await driver.suspend(spec.hostId);
        await leave(spec);
        expect(await stateOf(spec), name).toBe('suspended');
        await expect(driver.resume(spec), name).rejects.toThrow(MemoryLostError);
        expect(await stateOf(spec), name).toBe('stopped');
        expect(await lost(spec), name).toBeInstanceOf(Date);
        // As an update does.
        await driver.stop(spec.hostId);
      }
      const address = await bringUp(first.spec);
      expect(await driver.startedFrom(first.spec.hostId)).toBe('boot');
      expect(await suite.volumes(address)).toContain('"kept"');
      for (const { spec } of [first, ...others]) {
        await driver.destroy(spec.hostId);
        expect(await harness.residue(spec.hostId)).toEqual([]);
      }
    },
  );

  itNeeds(['suspend', 'templates'], 'stop: stops a suspended host whose memory is unusable', async () => {
    const [unusable] = suite.harness.unusableMemory;
    const spec = newSpec();
    await suite.driver.prepare(spec);
    await suite.driver.start(spec);
    await suite.driver.suspend(spec.hostId);
    await unusable?.leave(spec);
    await suite.driver.stop(spec.hostId);
    expect(await stateOf(spec)).toBe('stopped');
  });

  // Fails if the start keeps the recorded power: the host was listed as paused while it ran.
  itNeeds(['pause'], 'pause: a host whose VM ends while it is paused runs after its next start', async () => {
    const spec = newSpec();
    await suite.driver.prepare(spec);
    await suite.driver.start(spec);
    await suite.driver.pause(spec.hostId);
    await suite.harness.killVm(spec.hostId);
    await suite.expectStopped(spec);
    await suite.driver.prepare(spec);
    await suite.driver.start(spec);
    expect(await stateOf(spec)).toBe('running');
  });

  itNeeds(
    ['traffic'],
    'traffic: counts connections and packets; no container runs on a new host',
    async () => {
      const { driver } = suite;
      const spec = newSpec();
      const address = await bringUp(spec);
      const traffic = async () => {
        const seen = (await driver.traffic([spec])).get(spec.hostId);
        if (seen === undefined) throw new Error('the answer lacks the host');
        return seen;
      };
      await eventually('nothing is open', async () => (await traffic()).connections === 0);
      const { packets } = await traffic();
      await identityOf(address);
      expect((await traffic()).packets).toBeGreaterThan(packets);
      expect(await driver.runningContainers(spec)).toBe(0);
    },
  );
}
