import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Platform } from '../../lib/platform.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { workflows } from '../../../src/operations/workflows.ts';
import type { Host } from '../../../src/core/model/host.ts';
import { median } from '../lib/statistics.ts';

/** Parked hosts. */
export const poolSize = 4;

const atOnce = 20;

/** Duration of the refill rate measurement, in milliseconds. */
const refillMs = 60_000;

/** Creates at the refill rate, each of which is to be answered within the request. */
const sustainedCreates = 100;

const poolTimeoutMs = 120_000;

/** The description of last_operation if the host came from the pool. */
const claimedSummary = workflows.provision.summary?.({ startedFrom: 'pool' } as Host);

/** Waits until the pool has at least `wanted` parked hosts. */
async function waitForPool(platform: Platform, wanted: number): Promise<void> {
  const until = performance.now() + poolTimeoutMs;
  for (;;) {
    const ready = (await platform.hosts()).filter(({ state }) => state === 'parked').length;
    if (ready >= wanted) return;
    if (performance.now() > until)
      throw new Error(`the pool has only ${ready} of ${wanted} hosts after ${poolTimeoutMs / 1000} s`);
    await delay(20);
  }
}

export const poolIsFull = (platform: Platform) => waitForPool(platform, poolSize);

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

/** Creates per minute if each starts as soon as the pool has a host and its instance is deleted at once. */
async function refillRate(
  platform: Platform,
  remove: (instanceId: string) => Promise<void>,
  progress: (line: string) => void,
): Promise<number> {
  progress('measuring how fast the pool is refilled during creates and deletes');
  await poolIsFull(platform);
  // Hosts that are parked already were not refilled within the measured time.
  for (let count = 0; count < poolSize; count += 1) await createAndRemove(platform, remove);
  const begun = performance.now();
  let creates = 0;
  while (performance.now() - begun < refillMs) {
    await waitForPool(platform, 1);
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
  const fromPool = (await platform.progress(instanceId)) === claimedSummary;
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
