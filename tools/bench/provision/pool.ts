import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Platform } from '../../lib/platform.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median } from '../lib/statistics.ts';

/** Hosts that are held ready. */
export const poolSize = 4;

const atOnce = 20;

/** So long the refill rate is measured, in milliseconds. */
const refillMs = 60_000;

/** Creates at the refill rate, each of which is to be answered within the request. */
const sustainedCreates = 100;

const poolTimeoutMs = 120_000;

/** Waits until the pool holds so many hosts. */
async function poolHolds(platform: Platform, wanted: number): Promise<void> {
  const until = performance.now() + poolTimeoutMs;
  for (;;) {
    const ready = (await platform.hosts()).filter(({ state }) => state === 'parked').length;
    if (ready >= wanted) return;
    if (performance.now() > until) throw new Error(`the pool holds ${ready} hosts and is not filled further`);
    await delay(20);
  }
}

export const poolIsFull = (platform: Platform) => poolHolds(platform, poolSize);

/** Creates that all begin at the same moment: until the last of them is there. */
export async function createTogether(
  platform: Platform,
  remove: (instanceId: string) => Promise<void>,
  progress: (line: string) => void,
): Promise<Figure[]> {
  progress(`${atOnce} creates at once`);
  const begun = performance.now();
  const instances = await Promise.all(
    Array.from({ length: atOnce }, async () => {
      const instanceId = `bench-${randomUUID()}`;
      await platform.create(instanceId, 'bench', 'pool');
      return { instanceId, ms: performance.now() - begun };
    }),
  );
  const times = instances.map(({ ms }) => ms);
  for (const { instanceId } of instances) await remove(instanceId);
  return [
    figure('create.at_once', atOnce, 'count'),
    figure('create.at_once.p50_ms', median(times), 'ms'),
    figure('create.at_once.last_ms', Math.max(...times), 'ms'),
  ];
}

/** A create whenever the pool holds a host, each instance deleted at once: so many a minute are refilled beside it. */
async function refillRate(
  platform: Platform,
  remove: (instanceId: string) => Promise<void>,
  progress: (line: string) => void,
): Promise<number> {
  progress('how fast the pool is refilled beside creates and deletes');
  await poolIsFull(platform);
  // What it holds at the beginning was not refilled within the time.
  for (let count = 0; count < poolSize; count += 1) await createAndRemove(platform, remove);
  const begun = performance.now();
  let creates = 0;
  while (performance.now() - begun < refillMs) {
    await poolHolds(platform, 1);
    await createAndRemove(platform, remove);
    creates += 1;
  }
  return creates / ((performance.now() - begun) / 60_000);
}

async function createAndRemove(
  platform: Platform,
  remove: (instanceId: string) => Promise<void>,
): Promise<{ synchronous: boolean; fromPool: boolean }> {
  const instanceId = `bench-${randomUUID()}`;
  const { synchronous } = await platform.create(instanceId, 'bench', 'pool');
  const fromPool = (await platform.progress(instanceId)).includes('out of the pool');
  await remove(instanceId);
  return { synchronous, fromPool };
}

/** Creates at the pace of the refill, whether the one before has ended or not: how many were answered within the request. */
export async function createSustained(
  platform: Platform,
  remove: (instanceId: string) => Promise<void>,
  progress: (line: string) => void,
): Promise<Figure[]> {
  const perMinute = await refillRate(platform, remove, progress);
  await poolIsFull(platform);
  const begun = performance.now();
  const made: Promise<{ synchronous: boolean; fromPool: boolean }>[] = [];
  for (let count = 0; count < sustainedCreates; count += 1) {
    progress(`create ${count + 1} of ${sustainedCreates} at ${perMinute.toFixed(0)} a minute`);
    await delay(Math.max(0, begun + (count * 60_000) / perMinute - performance.now()));
    made.push(createAndRemove(platform, remove));
  }
  const all = await Promise.all(made);
  const minutes = (performance.now() - begun) / 60_000;
  return [
    figure('create.refill_per_minute', perMinute, '1/min'),
    figure(
      'create.synchronous_share',
      all.filter(({ synchronous }) => synchronous).length / all.length,
      'ratio',
    ),
    figure('create.from_pool_share', all.filter(({ fromPool }) => fromPool).length / all.length, 'ratio'),
    figure('create.sustained_per_minute', all.length / minutes, '1/min'),
  ];
}
