import { expect, it } from 'vitest';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Suite } from './suite.ts';

export function describeGuest(suite: Suite): void {
  it('guest: a host that was not started has no VM to talk to', async () => {
    const { driver } = suite;
    const spec = suite.newSpec();
    await driver.prepare(spec);
    await expect(driver.identify(spec)).rejects.toThrow(HypervisorError);
    await expect(driver.engineAnswers(spec)).rejects.toThrow(HypervisorError);
    expect(await driver.memoryUsage(spec.hostId)).toBeUndefined();
  });
}
