import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { siteId } from '../config/secrets.ts';
import { connectPlatform, type Platform } from '../demo/platform.ts';
import { startBroker } from './broker.ts';
import { availableMib, machinesOf, pssMib } from './machines.ts';
import { type Figure, figure } from './report.ts';
import { median, p95 } from './statistics.ts';
import { openRequest, ping } from './tenant.ts';

const shape = { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 10 };
/** Hosts that are held ready. */
const poolSize = 4;
const catalog = {
  offerings: [
    {
      id: 'bench',
      name: 'container-host',
      description: 'For the bench',
      plans: [
        { id: 'template', name: 'small', description: 'Restored', free: true, host: shape, idle: 'run' },
        {
          id: 'pool',
          name: 'small-pool',
          description: 'Restored ahead',
          free: true,
          host: shape,
          idle: 'run',
          pool: poolSize,
        },
        {
          id: 'cold',
          name: 'small-cold',
          description: 'Booted',
          free: true,
          host: shape,
          template: 'never',
        },
      ],
    },
  ],
};

const ways = ['cold', 'template', 'pool'] as const;
type Way = (typeof ways)[number];

/** One create, in milliseconds. */
interface Sample {
  /** From the PUT of the instance until the platform knows that it is there: its answer, or last_operation. */
  readonly createMs: number;
  /** From the same moment to the first `_ping` through the gateway, bind included. */
  readonly pingMs: number;
  readonly synchronous: boolean;
  /** Time in each step, by the words of last_operation; only where it was asked. */
  readonly steps: ReadonlyMap<string, number>;
}

/** Names in the figures, for the steps' words (core/operations/host-steps.ts). */
const stepNames: readonly [string, string][] = [
  ['Making the disk', 'disk_and_network_ms'],
  ['Starting the virtual', 'machine_ms'],
  ['Waiting for the virtual', 'guest_and_identity_ms'],
  ['Waiting for the Docker', 'engine_ms'],
];

const unbindsPerRun = 4;
/** An idle host has come to rest after this: timers of its first minute included. */
const settleMs = 30_000;
/** Creates without a cold boot are short: there are more of them, for the sake of the 95 of 100. */
const shortRunsPerRun = 4;
const atOnce = 20;
/** The refill rate that is promised: creates a minute, each of which is to find a host in the pool or a template. */
const sustainedPerMinute = 20;
const sustainedCreates = 100;

/** Cold boot, template and pool in one run; memory of hosts that run and that are paused; unbinds and deletes. */
export async function provisionSuite(
  options: { runs: number; cacheDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const broker = await startBroker(catalog, options.cacheDirectory, progress, {
    // As it is shipped.
    BERTH_SYNC_WAIT_MS: '2500',
  });
  try {
    const platform = await connectPlatform(broker.settings);
    const samples: Record<Way, Sample[]> = { cold: [], template: [], pool: [] };
    const watched: Record<Way, Sample[]> = { cold: [], template: [], pool: [] };
    const cuts: number[] = [];
    const deletes: number[] = [];
    const remove = async (instanceId: string) => {
      const begun = performance.now();
      await platform.remove(instanceId);
      deletes.push(performance.now() - begun);
    };
    // The first restore loads the template into memory, once in a worker's life; it is not one of the samples.
    await platform.remove((await create(platform, 'template')).instanceId);
    for (let run = 1; run <= options.runs; run += 1) {
      for (const way of ways) {
        for (let count = 0; count < (way === 'cold' ? 1 : shortRunsPerRun); count += 1) {
          progress(`run ${run} of ${options.runs}: ${way}`);
          if (way === 'pool') await poolIsFull(platform);
          const { instanceId, sample } = await create(platform, way);
          samples[way].push(sample);
          if (way === 'template' && count === 0) {
            for (let each = 0; each < unbindsPerRun; each += 1) cuts.push(await unbind(platform, instanceId));
          }
          await remove(instanceId);
        }
        // Who asks how far it is slows it down: the breakdown comes from creates of its own.
        if (way === 'pool') await poolIsFull(platform);
        const { instanceId, sample } = await create(platform, way, 'watched');
        watched[way].push(sample);
        await remove(instanceId);
      }
    }
    progress(`${atOnce} creates at once`);
    await poolIsFull(platform);
    const together = await createTogether(platform, remove);
    const sustained = await createSustained(platform, remove, progress);
    progress('memory of hosts');
    const memory = await memoryOfHosts(platform, await siteId(broker.settings), options.runs);
    const time = (way: Way) => samples[way].map(({ createMs }) => createMs);
    return [
      ...ways.flatMap((way) => [
        figure(`create.${way}.p50_ms`, median(time(way)), 'ms'),
        figure(`create.${way}.p95_ms`, p95(time(way)), 'ms'),
        figure(`create.${way}.to_ping_p50_ms`, median(samples[way].map(({ pingMs }) => pingMs)), 'ms'),
        figure(`create.${way}.samples`, samples[way].length, 'count'),
        ...breakdown(way, watched[way]),
      ]),
      figure('create.cold_over_template', median(time('cold')) / median(time('template')), 'ratio'),
      figure('create.cold_over_pool', median(time('cold')) / median(time('pool')), 'ratio'),
      ...together,
      ...sustained,
      ...memory,
      figure('delete.p50_ms', median(deletes), 'ms'),
      figure('delete.p95_ms', p95(deletes), 'ms'),
      figure('unbind.cut.p50_ms', median(cuts), 'ms'),
      figure('unbind.cut.p95_ms', p95(cuts), 'ms'),
      figure('unbind.samples', cuts.length, 'count'),
    ];
  } finally {
    await broker.stop();
  }
}

const poolTimeoutMs = 120_000;

/** Waits until the pool is as large as it is to be. */
async function poolIsFull(platform: Platform): Promise<void> {
  const until = performance.now() + poolTimeoutMs;
  for (;;) {
    const ready = (await platform.hosts()).filter(({ state }) => state === 'pooled').length;
    if (ready >= poolSize) return;
    if (performance.now() > until) throw new Error(`the pool holds ${ready} hosts and is not filled further`);
    await delay(100);
  }
}

/** Creates that all begin at the same moment: until the last of them is there. */
async function createTogether(
  platform: Platform,
  remove: (instanceId: string) => Promise<void>,
): Promise<Figure[]> {
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

/** Creates at a steady rate, each instance deleted after its create: how many were answered within the request. */
async function createSustained(
  platform: Platform,
  remove: (instanceId: string) => Promise<void>,
  progress: (line: string) => void,
): Promise<Figure[]> {
  await poolIsFull(platform);
  const begun = performance.now();
  let synchronous = 0;
  let fromPool = 0;
  for (let count = 0; count < sustainedCreates; count += 1) {
    progress(`create ${count + 1} of ${sustainedCreates} at ${sustainedPerMinute} a minute`);
    await delay(Math.max(0, begun + (count * 60_000) / sustainedPerMinute - performance.now()));
    const instanceId = `bench-${randomUUID()}`;
    if ((await platform.create(instanceId, 'bench', 'pool')).synchronous) synchronous += 1;
    if ((await platform.progress(instanceId)).includes('out of the pool')) fromPool += 1;
    await remove(instanceId);
  }
  const minutes = (performance.now() - begun) / 60_000;
  return [
    figure('create.synchronous_share', synchronous / sustainedCreates, 'ratio'),
    figure('create.from_pool_share', fromPool / sustainedCreates, 'ratio'),
    figure('create.sustained_per_minute', sustainedCreates / minutes, '1/min'),
  ];
}

function breakdown(way: Way, samples: readonly Sample[]): Figure[] {
  return stepNames.map(([words, name]) => {
    const times = samples.map(
      ({ steps }) => [...steps].find(([description]) => description.startsWith(words))?.[1] ?? 0,
    );
    return figure(`create.${way}.${name}`, median(times), 'ms');
  });
}

async function create(
  platform: Platform,
  way: Way,
  watch?: 'watched',
): Promise<{ instanceId: string; sample: Sample }> {
  const instanceId = `bench-${randomUUID()}`;
  const begun = performance.now();
  const watcher = watch === undefined ? undefined : watchSteps(platform, instanceId);
  const { synchronous } = await platform.create(instanceId, 'bench', way);
  const createMs = performance.now() - begun;
  const steps = (await watcher?.end()) ?? new Map<string, number>();
  const credentials = await platform.bind(instanceId, 'first', way);
  while (!(await ping(credentials))) await delay(5);
  return { instanceId, sample: { createMs, pingMs: performance.now() - begun, synchronous, steps } };
}

/** How long last_operation speaks of which step; as exact as it is asked often. */
function watchSteps(platform: Platform, instanceId: string) {
  const times = new Map<string, number>();
  let going = true;
  const loop = async () => {
    let last = performance.now();
    while (going) {
      const description = await platform.progress(instanceId).catch(() => undefined);
      const now = performance.now();
      if (description !== undefined) times.set(description, (times.get(description) ?? 0) + now - last);
      last = now;
      await delay(10);
    }
  };
  const over = loop();
  return {
    async end() {
      going = false;
      await over;
      return times;
    },
  };
}

/** From the DELETE of a binding until its open stream is closed and a new connection is refused. */
async function unbind(platform: Platform, instanceId: string): Promise<number> {
  const bindingId = `bench-${randomUUID()}`;
  const credentials = await platform.bind(instanceId, bindingId, 'template');
  const stream = openRequest(credentials, '/events');
  const cut = new Promise<void>((resolve, reject) => {
    stream.on('error', () => {
      resolve();
    });
    stream.on('response', (response) => {
      if (response.statusCode !== 200) reject(new Error('the stream was refused while it was bound'));
      response.resume().on('close', () => {
        resolve();
      });
    });
  });
  const isOpen = new Promise<void>((resolve) => {
    stream.on('response', () => {
      resolve();
    });
  });
  stream.end();
  await isOpen;
  const begun = performance.now();
  await platform.unbind(instanceId, bindingId);
  if (await ping(credentials)) throw new Error('a connection was accepted after the unbind had answered');
  await cut;
  return performance.now() - begun;
}

async function memoryOfHosts(platform: Platform, site: string, count: number): Promise<Figure[]> {
  // Hosts of the pool are not among them.
  const others = new Set(await machinesOf(site));
  const before = await availableMib();
  const instances: string[] = [];
  for (let index = 0; index < count; index += 1) {
    instances.push((await create(platform, 'template')).instanceId);
  }
  await delay(settleMs);
  const after = await availableMib();
  const machines = (await machinesOf(site)).filter((pid) => !others.has(pid));
  const running = await Promise.all(machines.map(pssMib));
  for (const { host, instance } of await platform.hosts()) {
    if (instance !== undefined && instances.includes(instance)) await platform.setPower(host, 'paused');
  }
  while ((await platform.hosts()).filter(({ power }) => power === 'paused').length < count) await delay(100);
  const paused = await Promise.all(machines.map(pssMib));
  const pooled = await Promise.all([...others].map(pssMib));
  for (const instanceId of instances) await platform.remove(instanceId);
  return [
    figure('host.running.pss_mib', median(running), 'MiB'),
    figure('host.running.mem_available_mib', (before - after) / count, 'MiB'),
    figure('host.running.hosts', running.length, 'count'),
    // It has run: a paused host keeps what it wrote until it is suspended.
    figure('host.paused.pss_mib', median(paused), 'MiB'),
    figure('host.pooled.pss_mib', median(pooled), 'MiB'),
  ];
}
