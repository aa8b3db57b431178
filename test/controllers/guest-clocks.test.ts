import { expect, it } from 'vitest';
import { createGuestClocks } from '../../src/controllers/guest-clocks.ts';
import { silentLogger } from '../support/logger.ts';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture({ deadlines: { longMs: 500, shortMs: 500 } });

// That the clock is right afterwards: test/isolation/jail.vm.test.ts.
it("guest clocks: each running guest's clock is corrected, also if another one fails; a sleeping one is left alone", async () => {
  const [running, hanging, paused] = [
    await fixture.makeHost('run'),
    await fixture.makeHost('run'),
    await fixture.makeHost('run'),
  ];
  await fixture.request(paused, 'paused');
  await fixture.makeWorker().fulfilRequests();
  expect(await fixture.powerOf(paused)).toBe('paused');
  const corrected: string[] = [];
  fixture.before = (method, hostId) => {
    if (method !== 'correctClock') return undefined;
    corrected.push(hostId);
    return hostId === hanging ? new Promise<void>(() => undefined) : undefined;
  };
  const { store, hypervisor } = fixture.broker;
  await createGuestClocks({ records: store.records, hypervisor, logger: silentLogger }).runOnce();
  expect(corrected.sort()).toEqual([running, hanging].sort());
});
