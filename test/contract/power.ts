import { expect } from 'vitest';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
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
