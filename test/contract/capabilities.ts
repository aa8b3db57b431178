import { expect, it } from 'vitest';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Suite } from './suite.ts';

/** What a driver does not state, it refuses. The tests of the other files prove what it states. */
export function describeCapabilities(suite: Suite): void {
  it('capabilities: what the driver does not state is refused, and changes nothing', async () => {
    const { driver, harness } = suite;
    const can = driver.capabilities;
    const spec = suite.newSpec();
    const refused = (call: Promise<unknown>) => expect(call).rejects.toThrow(HypervisorError);
    if (can.park) expect(can.templates).toBe(true);

    await driver.prepare(spec);
    if (!can.park) await refused(driver.park(spec));
    if (!can.templates) {
      await refused(driver.makeTemplate(() => undefined, AbortSignal.timeout(10_000)));
      expect(await driver.hasTemplate(harness.plan)).toBe(false);
    }
    if (!can.imageUpgrade) await refused(driver.reshape({ ...spec, imageVersion: '9.9.9' }));
    if (!can.diskGrowth) {
      const shape = { ...spec.shape, diskGib: spec.shape.diskGib + 1 };
      await refused(driver.reshape({ ...spec, shape }));
    }
    await suite.bringUp(spec);
    if (!can.pause) await refused(driver.pause(spec.hostId));
    if (!can.suspend) await refused(driver.suspend(spec.hostId));
    if (!can.traffic) await refused(driver.traffic([spec]));
    for (const egress of [
      { kind: 'internet' },
      { kind: 'none' },
      { kind: 'networks', cidrs: ['192.0.2.0/24'] },
    ] as const) {
      const call = driver.connect({ ...spec, egress });
      if (can.egress.includes(egress.kind)) await call;
      else await refused(call);
    }
    if (!can.publishedPorts) {
      await refused(driver.connect({ ...spec, publishedPorts: { first: 30_000, count: 1 } }));
    }
    expect(await suite.stateOf(spec)).toBe('running');
    expect(await driver.engineAnswers(spec)).toBe(true);
  });
}
