import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { busyboxTree, type Docker, dockerFor } from '../../lib/docker.ts';
import { connectPlatform, type Platform } from '../../lib/platform.ts';
import { until } from '../../lib/until.ts';
import { startBroker } from '../lib/broker.ts';
import { engineSize } from '../lib/engine-requests.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { memfdMib, processOf } from '../lib/proc.ts';
import { median, p95 } from '../lib/statistics.ts';
import { listen } from './silence.ts';

const sizes = {
  small: { vcpus: 1, memory_mib: 768, disk_gib: 4 },
  medium: { vcpus: 2, memory_mib: 1536, disk_gib: 6 },
  large: { vcpus: 4, memory_mib: 2560, disk_gib: 8 },
} as const;
type PlanId = keyof typeof sizes;

const catalog = {
  offerings: [
    {
      ...{ id: 'bench', name: 'container-host', description: 'For the bench' },
      plans: Object.entries(sizes).map(([id, size]) => ({
        ...{ id, name: id, description: 'For the bench', free: true, idle: 'run' },
        host: { ...size, published_ports: 0 },
      })),
    },
  ],
};

const updates = [
  { name: 'small_to_medium', from: 'small', to: 'medium' },
  { name: 'medium_to_large', from: 'medium', to: 'large' },
] as const;
type UpdateName = (typeof updates)[number]['name'];

const writer = 'i=0; while :; do echo $i; i=$((i + 1)); sleep 0.1; done';
/** Silence is measured for this time before the updates, for comparison. */
const quietMs = 5_000;
const firstLineMs = 60_000;
const shownMs = 120_000;
/** Share of the added memory that has to be shown: the guest may use some of it for its own tables. */
const shownShare = 0.95;

interface Round {
  readonly times: Readonly<Record<UpdateName, number>>;
  readonly silenceBeforeMs: number;
  readonly silenceMs: number;
}

/** Hosts that get the processors, memory and disk of larger plans while a container writes. */
export async function resizeSuite(
  options: { runs: number; cacheDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const broker = await startBroker(catalog, options.cacheDirectory, progress);
  try {
    const platform = await connectPlatform(broker.settings);
    const rounds: Round[] = [];
    for (let run = 1; run <= options.runs; run += 1) {
      progress(`run ${run} of ${options.runs}`);
      rounds.push(await withHost(platform, oneRound));
    }
    const loadedMib = await memfdMib(await processOf(broker.settings.stateDirectory, 'worker'));
    return [
      ...updates.flatMap(({ name }) => {
        const times = rounds.map((round) => round.times[name]);
        return [
          figure(`resize.${name}.p50_ms`, median(times), 'ms'),
          figure(`resize.${name}.p95_ms`, p95(times), 'ms'),
        ];
      }),
      figure('resize.samples', rounds.length, 'each'),
      figure('resize.longest_silence_ms', Math.max(...rounds.map(({ silenceMs }) => silenceMs)), 'ms'),
      figure(
        'resize.silence_before_ms',
        Math.max(...rounds.map(({ silenceBeforeMs }) => silenceBeforeMs)),
        'ms',
      ),
      // If there is no template, it would look as if it took no memory.
      ...(loadedMib === 0 ? [] : [figure('template.loaded_mib', loadedMib, 'MiB')]),
    ];
  } finally {
    await broker.stop();
  }
}

type Credentials = Awaited<ReturnType<Platform['bind']>>;

interface Tenant {
  readonly credentials: Credentials;
  readonly docker: Docker;
  /** Changes the instance's plan. */
  readonly update: (to: PlanId) => Promise<void>;
}

/** Runs `act` with a new host of the plan small. */
async function withHost<T>(platform: Platform, act: (tenant: Tenant) => Promise<T>): Promise<T> {
  const instanceId = `bench-${randomUUID()}`;
  await platform.create(instanceId, 'bench', 'small');
  try {
    const credentials = await platform.bind(instanceId, 'first', 'small');
    const docker = await dockerFor(credentials);
    try {
      return await act({ credentials, docker, update: (to) => platform.update(instanceId, to) });
    } finally {
      await docker.dispose();
    }
  } finally {
    await platform.remove(instanceId);
  }
}

async function oneRound({ credentials, docker, update }: Tenant): Promise<Round> {
  await succeed(docker, ['import', '-', 'bench:1'], await busyboxTree());
  const run = ['run', '-d', '--name', 'writer', '--network', 'none', 'bench:1', '/bin/sh', '-c', writer];
  await succeed(docker, run);
  const logs = listen(docker.follow(['logs', '-f', 'writer']));
  try {
    await until('the container has written', firstLineMs, () => logs.hasBegun());
    // The lines that were written before, which arrive together.
    await delay(1_000);
    logs.longestSilenceMs();
    await delay(quietMs);
    const silenceBeforeMs = logs.longestSilenceMs();
    const times = {} as Record<UpdateName, number>;
    for (const { name, from, to } of updates) {
      const before = await engineSize(credentials);
      const begun = performance.now();
      await update(to);
      await shows(credentials, {
        vcpus: sizes[to].vcpus,
        memoryBytes:
          before.MemTotal + shownShare * (sizes[to].memory_mib - sizes[from].memory_mib) * 1024 ** 2,
      });
      times[name] = performance.now() - begun;
    }
    return { times, silenceBeforeMs, silenceMs: logs.longestSilenceMs() };
  } finally {
    logs.end();
  }
}

/** Waits until `docker info` shows these. */
async function shows(
  credentials: Credentials,
  wanted: { vcpus: number; memoryBytes: number },
): Promise<void> {
  const deadline = performance.now() + shownMs;
  for (;;) {
    const { NCPU, MemTotal } = await engineSize(credentials);
    if (NCPU === wanted.vcpus && MemTotal >= wanted.memoryBytes) return;
    if (performance.now() > deadline) {
      throw new Error(
        `the engine has ${NCPU} processors and ${MemTotal} bytes instead of ${wanted.vcpus} and ${wanted.memoryBytes}`,
      );
    }
    await delay(20);
  }
}

async function succeed(docker: Docker, args: readonly string[], input?: Buffer): Promise<void> {
  const { code, stderr } = await docker.run(args, input);
  if (code !== 0) throw new Error(`docker ${args[0] ?? ''} failed: ${stderr}`);
}
