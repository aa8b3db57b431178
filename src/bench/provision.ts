import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { ClientRequest } from 'node:http';
import { request } from 'node:https';
import { setTimeout as delay } from 'node:timers/promises';
import { siteId } from '../config/secrets.ts';
import type { Credentials } from '../core/credentials.ts';
import { connectPlatform, type Platform } from '../demo/platform.ts';
import { processesWith } from '../demo/residue.ts';
import { qemuProgram } from '../hypervisors/qemu/arguments.ts';
import { startBroker } from './broker.ts';
import { type Figure, figure } from './report.ts';
import { median, p95 } from './statistics.ts';

const shape = { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 10 };
const catalog = {
  offerings: [
    {
      id: 'bench',
      name: 'container-host',
      description: 'For the bench',
      plans: [
        { id: 'template', name: 'small', description: 'Restored', free: true, host: shape },
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

type Way = 'cold' | 'template';

/** One create, from the PUT of the instance to the first `_ping` through the gateway, in milliseconds. */
interface Sample {
  readonly totalMs: number;
  /** Time in each step, by the words of last_operation. */
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

/** Cold boot against restore, alternating in one run; memory of running hosts; how fast an unbind cuts. */
export async function provisionSuite(
  options: { runs: number; cacheDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const broker = await startBroker(catalog, options.cacheDirectory, progress);
  try {
    const platform = await connectPlatform(broker.settings);
    const samples: Record<Way, Sample[]> = { cold: [], template: [] };
    const cuts: number[] = [];
    // The first restore loads the template into memory, once in a worker's life; it is not one of the samples.
    await platform.remove((await create(platform, 'template')).instanceId);
    for (let run = 1; run <= options.runs; run += 1) {
      for (const way of ['cold', 'template'] as const) {
        progress(`run ${run} of ${options.runs}: ${way}`);
        const { instanceId, sample } = await create(platform, way);
        samples[way].push(sample);
        if (way === 'template') {
          for (let count = 0; count < unbindsPerRun; count += 1)
            cuts.push(await unbind(platform, instanceId));
        }
        await platform.remove(instanceId);
      }
    }
    progress('memory of running hosts');
    const memory = await runningMemory(platform, await siteId(broker.settings), options.runs);
    const total = (way: Way) => samples[way].map(({ totalMs }) => totalMs);
    return [
      ...(['cold', 'template'] as const).flatMap((way) => [
        figure(`create.${way}.p50_ms`, median(total(way)), 'ms'),
        figure(`create.${way}.p95_ms`, p95(total(way)), 'ms'),
        ...breakdown(way, samples[way]),
      ]),
      figure('create.cold_over_template', median(total('cold')) / median(total('template')), 'ratio'),
      ...memory,
      figure('unbind.cut.p50_ms', median(cuts), 'ms'),
      figure('unbind.cut.p95_ms', p95(cuts), 'ms'),
      figure('create.samples', options.runs, 'each'),
      figure('unbind.samples', cuts.length, 'count'),
    ];
  } finally {
    await broker.stop();
  }
}

function breakdown(way: Way, samples: readonly Sample[]): Figure[] {
  return stepNames.map(([words, name]) => {
    const times = samples.map(
      ({ steps }) => [...steps].find(([description]) => description.startsWith(words))?.[1] ?? 0,
    );
    return figure(`create.${way}.${name}`, median(times), 'ms');
  });
}

async function create(platform: Platform, way: Way): Promise<{ instanceId: string; sample: Sample }> {
  const instanceId = `bench-${randomUUID()}`;
  const begun = performance.now();
  const watched = watchSteps(platform, instanceId);
  await platform.create(instanceId, 'bench', way);
  const steps = await watched.end();
  const credentials = await platform.bind(instanceId, 'first', way);
  while (!(await ping(credentials))) await delay(5);
  return { instanceId, sample: { totalMs: performance.now() - begun, steps } };
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

function open(credentials: Credentials, path: string): ClientRequest {
  const { hostname, port } = new URL(credentials.docker_host);
  return request({
    host: hostname,
    port,
    path,
    ca: credentials.ca,
    cert: credentials.cert,
    key: credentials.key,
    agent: false,
  });
}

/** Whether the engine answers `_ping` through the gateway. */
function ping(credentials: Credentials): Promise<boolean> {
  return new Promise((resolve) => {
    const sent = open(credentials, '/_ping');
    sent.on('response', (response) => {
      response.resume().on('end', () => {
        resolve(response.statusCode === 200);
      });
    });
    sent.on('error', () => {
      resolve(false);
    });
    sent.end();
  });
}

/** From the DELETE of a binding until its open stream is closed and a new connection is refused. */
async function unbind(platform: Platform, instanceId: string): Promise<number> {
  const bindingId = `bench-${randomUUID()}`;
  const credentials = await platform.bind(instanceId, bindingId, 'template');
  const stream = open(credentials, '/events');
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

async function runningMemory(platform: Platform, site: string, count: number): Promise<Figure[]> {
  const before = await availableMib();
  const instances: string[] = [];
  for (let index = 0; index < count; index += 1) {
    instances.push((await create(platform, 'template')).instanceId);
  }
  await delay(settleMs);
  const after = await availableMib();
  const machines = (await processesWith(`berth-${site}-`)).filter(({ command }) =>
    command.startsWith(qemuProgram),
  );
  const sizes = await Promise.all(machines.map(({ pid }) => pssMib(pid)));
  for (const instanceId of instances) await platform.remove(instanceId);
  return [
    figure('host.running.pss_mib', median(sizes), 'MiB'),
    figure('host.running.mem_available_mib', (before - after) / count, 'MiB'),
    figure('host.running.hosts', sizes.length, 'count'),
  ];
}

async function availableMib(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  return Number(/^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) / 1024;
}

async function pssMib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) / 1024;
}
