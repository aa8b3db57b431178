import { expect, it } from 'vitest';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Suite } from './suite.ts';

export function describeIntegrity(suite: Suite): void {
  const { newSpec, bringUp, stateOf } = suite;

  it('verify: finds no drift in a host that was left alone, also after a restart of the worker', async () => {
    const spec = newSpec();
    await expect(suite.driver.verify(spec.hostId)).rejects.toThrow(HypervisorError);
    await suite.driver.prepare(spec);
    await suite.driver.start(spec);
    expect(await suite.driver.verify(spec.hostId)).toEqual([]);
    await bringUp(spec);
    expect(await suite.driver.verify(spec.hostId)).toEqual([]);
    await suite.restartWorker();
    await suite.driver.connect(spec);
    expect(await suite.driver.verify(spec.hostId)).toEqual([]);
  });

  it('quarantine: cuts a host off until it is released, and leaves its VM running', async () => {
    const { driver } = suite;
    const spec = newSpec();
    await bringUp(spec);
    await driver.quarantine(spec.hostId);
    await driver.quarantine(spec.hostId);
    expect(await driver.engineAnswers(spec)).toBe(false);
    await expect(driver.connect(spec)).rejects.toThrow(HypervisorError);
    expect(await stateOf(spec)).toBe('running');
    await driver.release(spec.hostId);
    await driver.release(spec.hostId);
    await driver.connect(spec);
    expect(await driver.engineAnswers(spec)).toBe(true);
    await driver.quarantine(spec.hostId);
    await driver.destroy(spec.hostId);
    await driver.quarantine(spec.hostId);
    await driver.release(spec.hostId);
    expect(await suite.harness.residue(spec.hostId)).toEqual([]);
  });
}
