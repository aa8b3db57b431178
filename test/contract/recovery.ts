import { expect, it } from 'vitest';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Suite } from './suite.ts';

/** After kills: of a worker in the middle of its work, of a VM, and after a restart of the worker. */
export function describeRecovery(suite: Suite): void {
  const { newSpec, bringUp, stateOf, identityOf, itNeeds } = suite;
  const residue = (hostId: string) => suite.harness.residue(hostId);

  it('recovery: a half-made host is listed, completed and destroyed', async () => {
    const { driver, harness } = suite;
    expect(harness.halfMade).not.toHaveLength(0);
    for (const half of harness.halfMade) {
      const destroyed = newSpec();
      await half.leave(destroyed);
      expect(await stateOf(destroyed), half.name).toBe('stopped');
      await driver.destroy(destroyed.hostId);
      expect(await stateOf(destroyed), half.name).toBeUndefined();
      expect(await residue(destroyed.hostId), half.name).toEqual([]);

      const completed = newSpec();
      await half.leave(completed);
      await identityOf(await bringUp(completed));
      await driver.destroy(completed.hostId);
      expect(await residue(completed.hostId), half.name).toEqual([]);
    }
  });

  it('recovery: a host whose VM has ended is listed as stopped, and boots from its own disk', async () => {
    const { driver } = suite;
    const spec = newSpec();
    const address = await bringUp(spec);
    await suite.harness.killVm(spec.hostId);

    await suite.expectStopped(spec);
    await expect(driver.engineAnswers(spec)).rejects.toThrow(HypervisorError);
    await expect(driver.identify(spec)).rejects.toThrow(HypervisorError);
    expect(await driver.memoryUsage(spec.hostId)).toBeUndefined();
    await suite.expectUnreachable(address);

    await driver.prepare(spec);
    await driver.start(spec);
    expect(await stateOf(spec)).toBe('running');
    expect(await driver.startedFrom(spec.hostId)).toBe('boot');
  });

  it('recovery: a host whose VM has ended is destroyed without residue', async () => {
    const spec = newSpec();
    await bringUp(spec);
    await suite.harness.killVm(spec.hostId);
    await suite.driver.destroy(spec.hostId);
    expect(await stateOf(spec)).toBeUndefined();
    expect(await residue(spec.hostId)).toEqual([]);
  });

  itNeeds(['templates'], 'recovery: a restarted worker finds its hosts and continues them', async () => {
    const running = newSpec();
    const unconnected = newSpec();
    const stopped = newSpec();
    const address = await bringUp(running);
    const identity = await identityOf(address);
    await suite.driver.prepare(unconnected);
    await suite.driver.start(unconnected);
    await suite.driver.prepare(stopped);

    await suite.restartWorker();
    const { driver } = suite;

    expect(await stateOf(running)).toBe('running');
    expect(await stateOf(unconnected)).toBe('running');
    expect(await stateOf(stopped)).toBe('stopped');
    expect(await driver.startedFrom(running.hostId)).toBe('template');
    expect(await driver.connect(running)).toEqual(address);
    expect(await driver.engineAnswers(running)).toBe(true);
    expect(await identityOf(address)).toMatchObject({ ID: identity.ID, Name: identity.Name });
    // The operation that was making this host continues from its step.
    await identityOf(await bringUp(unconnected));

    for (const { hostId } of [running, unconnected, stopped]) {
      await driver.destroy(hostId);
      expect(await residue(hostId)).toEqual([]);
    }
  });
}
