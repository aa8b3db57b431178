import { expect, it } from 'vitest';
import { createAdoption } from '../../src/controllers/adoption.ts';
import { silentLogger } from '../support/logger.ts';
import { createPowerFixture } from './support/power-fixture.ts';

const fixture = createPowerFixture();

// Fails if a worker tries only once, when it starts: the host was unreachable until the next start.
it('adoption: a running host that could not be connected is connected by a later round, and only once', async () => {
  const [broken, sound] = [await fixture.makeHost('run'), await fixture.makeHost('run')];
  const connected: string[] = [];
  let isBroken = true;
  fixture.before = (method, hostId) => {
    if (method !== 'connect') return;
    if (hostId === broken && isBroken) throw new Error('no rules today');
    connected.push(hostId);
  };
  const { store, hypervisor } = fixture.broker;
  const adoption = createAdoption({ store, hypervisor, logger: silentLogger });

  expect(await adoption.runOnce()).toBe(1);
  expect(connected).toEqual([sound]);
  isBroken = false;
  expect(await adoption.runOnce()).toBe(1);
  expect(connected).toEqual([sound, broken]);
  expect(await adoption.runOnce()).toBe(0);
  expect(connected).toEqual([sound, broken]);
});
