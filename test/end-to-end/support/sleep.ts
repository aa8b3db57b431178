import { expect } from 'vitest';
import { connectPlatform } from '../../../tools/lib/platform.ts';
import type { BrokerProcess } from '../../support/broker-process.ts';
import { eventually } from '../../support/eventually.ts';

/** The recorded power of an instance's host; undefined if it has none. */
export async function powerOfHost(broker: BrokerProcess, instance: string): Promise<string | undefined> {
  const platform = await connectPlatform(broker.settings);
  return (await platform.hosts()).find((host) => host.instance === instance)?.power;
}

/** Lets an instance's host sleep although it has open connections. */
export async function sleepNow(
  broker: BrokerProcess,
  instance: string,
  how: 'pause' | 'suspend',
): Promise<void> {
  const from = broker.output().length;
  const { status } = await broker.update(instance, { parameters: { sleep_now: how } });
  expect(status).toBeLessThan(300);
  // Not the recorded power, which changes before the host sleeps: the time of the sleep is not that of a wake.
  const power = how === 'pause' ? 'paused' : 'suspended';
  const isAsleep = () => broker.output().slice(from).includes(`A host was ${power}`);
  await eventually(`${instance} sleeps`, isAsleep, { deadlineMs: 120_000, everyMs: 50 });
  expect(await powerOfHost(broker, instance)).toBe(power);
}
