import { expect } from 'vitest';
import { HostDisputedError } from '../../src/core/hypervisor/host-disputed-error.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Suite } from './suite.ts';
import { unowned } from './owners.ts';

export function describeTemplates(suite: Suite): void {
  const { newSpec, bringUp, stateOf, identityOf, itNeeds } = suite;

  itNeeds(
    ['park'],
    'park: a parked host is paused and unused until it is started, also for another worker',
    async () => {
      const owned = newSpec();
      const spec = unowned(owned);
      await expect(suite.driver.park(spec)).rejects.toThrow(HypervisorError);
      await suite.driver.prepare(spec);
      expect(await suite.driver.park(spec)).toBe(true);
      expect(await suite.driver.park(spec)).toBe(true);
      expect(await stateOf(spec)).toBe('paused');
      expect(await suite.driver.identify(spec)).toBe(false);

      await suite.restartWorker();
      const { driver } = suite;
      await suite.makeTemplate();
      expect(await driver.park(spec)).toBe(true);

      const address = await bringUp(owned);
      await identityOf(address);
      expect(await driver.startedFrom(spec.hostId)).toBe('pool');
      // It has run, so it can't be parked again, whether it runs or not.
      await expect(driver.park(spec)).rejects.toThrow(HostDisputedError);
      await driver.stop(spec.hostId);
      await expect(driver.park(spec)).rejects.toThrow(HostDisputedError);
    },
  );

  itNeeds(['park'], 'park: false without a template; restores a parked host whose VM has ended', async () => {
    const { driver, harness } = suite;
    const without = { ...unowned(newSpec()), planName: 'without-template' };
    await driver.prepare(without);
    expect(await driver.park(without)).toBe(false);

    const owned = newSpec();
    const ended = unowned(owned);
    await driver.prepare(ended);
    expect(await driver.park(ended)).toBe(true);
    await harness.killVm(ended.hostId);
    await suite.expectStopped(ended);
    expect(await driver.park(ended)).toBe(true);
    expect(await stateOf(ended)).toBe('paused');

    // Claimed, but its VM ends before it is started: it is unused, and need not boot.
    await harness.killVm(ended.hostId);
    await suite.expectStopped(ended);
    await identityOf(await bringUp(owned));
    expect(await driver.startedFrom(ended.hostId)).toBe('template');
  });

  itNeeds(['templates'], 'makeTemplate: changes nothing if it is aborted', async () => {
    const { driver, harness } = suite;
    await expect(driver.makeTemplate(() => undefined, AbortSignal.abort())).rejects.toThrow();
    expect(await driver.hasTemplate(harness.plan)).toBe(true);
  });

  // Fails with a template per plan: another one would be made, which takes minutes and is reported.
  itNeeds(
    ['templates'],
    'makeTemplate: one template restores hosts of all plans, each with the size of its plan',
    async () => {
      const { driver, harness } = suite;
      const { vcpus, memoryMib, diskGib } = harness.plan.shape;
      const larger = {
        planName: 'larger',
        shape: { vcpus: vcpus + 1, memoryMib: memoryMib + 256, diskGib: diskGib + 2 },
      };
      const reported: string[] = [];
      await driver.makeTemplate(
        (progress) => reported.push(progress),
        AbortSignal.timeout(suite.patience.templateMs),
      );
      expect(reported).toEqual([]);
      const spec = { ...newSpec(), ...larger };
      const address = await bringUp(spec);
      expect(await driver.startedFrom(spec.hostId)).toBe('template');
      await suite.waitFor('it has its size', () => driver.hasShape(spec));
      const info = await suite.sizeOf(address);
      expect(info.vcpus).toBe(vcpus + 1);
      expect(info.memoryMib).toBeGreaterThan(memoryMib);
    },
  );
}
