import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import limitConcurrency from 'p-limit';
import { siteId } from '../config/secrets.ts';
import type { Credentials } from '../core/credentials.ts';
import { busyboxTree, type Docker, dockerFor } from '../demo/docker.ts';
import { connectPlatform, type Platform } from '../demo/platform.ts';
import { startBroker } from './broker.ts';
import { cpuSeconds, machinesOf, pssMib } from './machines.ts';
import { type Figure, figure } from './report.ts';
import { median, p95 } from './statistics.ts';
import { ping } from './tenant.ts';

const host = { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 0 };
const planId = 'density';
/** A hundred containers need more memory than a small host has, some 11 MiB each. */
const loneId = 'density-lone';
const catalog = {
  offerings: [
    {
      id: 'bench',
      name: 'container-host',
      description: 'For the bench',
      plans: [
        { id: planId, name: 'small', description: 'Restored', free: true, host, idle: 'run' },
        {
          id: loneId,
          name: 'medium',
          description: 'For many containers',
          free: true,
          host: { ...host, vcpus: 2, memory_mib: 2048 },
          idle: 'run',
        },
      ],
    },
  ],
};

const image = 'density:1';
/** Containers on the one host, and hosts with one container each, that are held against each other. */
const sideBySide = 100;
/** A container that costs as little as one can. */
const sleeper = ['/bin/sleep', '1000000'];
/** So long the processors are watched, in milliseconds. */
const watchMs = 20_000;
/** `docker run` is timed on one host each time that the number of hosts has grown by so many. */
const every = 20;
/** So many hosts are asked once the machine is full. */
const asked = 20;

interface Tenant {
  readonly instanceId: string;
  readonly credentials: Credentials;
}

/**
 * Hosts side by side: what each costs that runs idle, that holds a container, and that is paused, and how fast a paused
 * one answers. Then paused ones besides, until the broker refuses one or there are `most`.
 */
export async function densitySuite(
  options: { hosts: number; most: number; cacheDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const broker = await startBroker(catalog, options.cacheDirectory, progress, {
    // A block of ports for each host, and memory as far as it goes.
    BERTH_PUBLISHED_PORTS: '20000-39999',
    BERTH_MEMORY_OVERCOMMIT: '99',
    // This bench and Postgres live on the same machine.
    BERTH_MEMORY_RESERVE_MIB: '2048',
    // What is measured does not come and go by itself.
    BERTH_INTEGRITY_SECONDS: '86400',
  });
  const dockers: Docker[] = [];
  try {
    const platform = await connectPlatform(broker.settings);
    const site = await siteId(broker.settings);
    const docker = async (tenant: Tenant) => {
      const made = await dockerFor(tenant.credentials);
      dockers.push(made);
      return made;
    };

    progress('one host with many containers');
    const lone = await make(platform, loneId);
    const loneDocker = await docker(lone);
    await importImage(loneDocker);
    let begun = 0;
    await twoAtATime(Array.from({ length: sideBySide }), async () => {
      progress(`container ${(begun += 1)} of ${sideBySide} on one host`);
      await run(loneDocker);
    });
    const containers = await pssOfAll(site);
    await platform.remove(lone.instanceId);

    const tenants: Tenant[] = [];
    const runs: Figure[] = [];
    while (tenants.length < options.hosts) {
      progress(`host ${tenants.length + 1} of ${options.hosts}`);
      tenants.push(await make(platform));
      if (tenants.length % every === 0 || tenants.length === 1) {
        runs.push(
          figure(`density.docker_run_ms_beside_${tenants.length}`, await timedRun(tenants[0], docker), 'ms'),
        );
      }
    }
    const count = tenants.length;
    const idle = await costOf(site, 'running idle', progress);

    const asleep = await pauseAll(platform, count, progress);
    const paused = await costOf(site, 'paused', progress);
    const wakes: number[] = [];
    for (const [index, tenant] of tenants.entries()) {
      progress(`waking host ${index + 1} of ${count}`);
      const asked = performance.now();
      if (await ping(tenant.credentials)) wakes.push(performance.now() - asked);
    }

    const held = tenants.slice(0, sideBySide);
    begun = 0;
    await twoAtATime(held, async (tenant) => {
      progress(`a container on host ${(begun += 1)} of ${held.length}`);
      const own = await docker(tenant);
      await importImage(own);
      await run(own);
    });
    const withOne = await pssOfAll(site);

    await pauseAll(platform, count, progress);
    const refused = await fill(platform, tenants, options.most, progress);
    progress(`no further host: ${refused ?? 'that is the most that was asked for'}`);
    const step = Math.ceil(tenants.length / asked);
    const full: number[] = [];
    for (const tenant of tenants.filter((_, index) => index % step === 0)) {
      const begun = performance.now();
      if (await ping(tenant.credentials)) full.push(performance.now() - begun);
    }

    for (const [index, tenant] of tenants.entries()) {
      progress(`deleting host ${index + 1} of ${tenants.length}`);
      await platform.remove(tenant.instanceId);
    }
    return [
      figure('density.hosts', count, 'count'),
      figure('density.running.pss_mib', median(idle.pss), 'MiB'),
      figure('density.running.cpu_share', idle.cpuShare, 'cores'),
      figure('density.paused_hosts', Math.min(asleep, wakes.filter((ms) => ms <= 1_000).length), 'count'),
      figure('density.paused.pss_mib', median(paused.pss), 'MiB'),
      figure('density.paused.cpu_share', paused.cpuShare, 'cores'),
      figure('density.wake.answered', wakes.length, 'count'),
      figure('density.wake.p50_ms', median(wakes), 'ms'),
      figure('density.wake.p95_ms', p95(wakes), 'ms'),
      ...runs,
      figure('density.containers_100_pss_mib', containers, 'MiB'),
      // Fewer hosts than that are never called so many: the figure is left out then.
      ...(held.length === sideBySide ? [figure('density.hosts_100_pss_mib', withOne, 'MiB')] : []),
      figure('density.full.hosts', tenants.length, 'count'),
      figure('density.full.refused', refused === undefined ? 0 : 1, 'count'),
      figure('density.full.wake.answered', full.length, 'count'),
      figure('density.full.wake.p95_ms', p95(full), 'ms'),
    ];
  } finally {
    for (const one of dockers) await one.dispose();
    await broker.stop();
  }
}

/**
 * Makes further hosts and pauses each.
 * @returns the broker's words where it refused one; undefined where there are `most`.
 */
async function fill(
  platform: Platform,
  tenants: Tenant[],
  most: number,
  progress: (line: string) => void,
): Promise<string | undefined> {
  while (tenants.length < most) {
    progress(`paused host ${tenants.length + 1}`);
    try {
      tenants.push(await make(platform));
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
    const running = (await platform.hosts()).find(({ power }) => power === 'on');
    if (running !== undefined) await platform.setPower(running.host, 'paused');
  }
  return undefined;
}

async function make(platform: Platform, plan = planId): Promise<Tenant> {
  const instanceId = `density-${randomUUID()}`;
  await platform.create(instanceId, 'bench', plan);
  return { instanceId, credentials: await platform.bind(instanceId, 'first', plan) };
}

/** As many as there are processors on the machine that the targets are for. */
const twoAtATime = async <T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> => {
  const limit = limitConcurrency(2);
  await Promise.all(items.map((item) => limit(() => act(item))));
};

async function must(docker: Docker, args: string[], input?: Buffer): Promise<void> {
  const { code, stderr } = await docker.run(args, input);
  if (code !== 0) throw new Error(`docker ${args[0] ?? ''} failed: ${stderr.trim()}`);
}

const importImage = async (docker: Docker) => must(docker, ['import', '-', image], await busyboxTree());
const run = (docker: Docker) => must(docker, ['run', '-d', '--network', 'none', image, ...sleeper]);

/** How long `docker run` takes on one host while the others are there. */
async function timedRun(
  tenant: Tenant | undefined,
  docker: (tenant: Tenant) => Promise<Docker>,
): Promise<number> {
  if (tenant === undefined) throw new Error('there is no host');
  const own = await docker(tenant);
  await importImage(own);
  const begun = performance.now();
  await must(own, ['run', '--rm', '--network', 'none', image, '/bin/echo']);
  return performance.now() - begun;
}

async function pssOfAll(site: string): Promise<number> {
  const sizes = await Promise.all((await machinesOf(site)).map(pssMib));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Memory of each machine, and the processor time that all of them together use, in cores. */
async function costOf(
  site: string,
  what: string,
  progress: (line: string) => void,
): Promise<{ pss: number[]; cpuShare: number }> {
  progress(`what hosts cost that are ${what}`);
  const machines = await machinesOf(site);
  const used = async () => {
    const seconds = await Promise.all(machines.map(cpuSeconds));
    return seconds.reduce((sum, each) => sum + each, 0);
  };
  const [before, begun] = [await used(), performance.now()];
  await delay(watchMs);
  const cpuShare = ((await used()) - before) / ((performance.now() - begun) / 1000);
  return { pss: await Promise.all(machines.map(pssMib)), cpuShare };
}

const pauseTimeoutMs = 300_000;

/** Returns how many are paused at the same time. */
async function pauseAll(
  platform: Platform,
  count: number,
  progress: (line: string) => void,
): Promise<number> {
  for (const { host: id } of await platform.hosts()) await platform.setPower(id, 'paused');
  const until = performance.now() + pauseTimeoutMs;
  for (;;) {
    const paused = (await platform.hosts()).filter(({ power }) => power === 'paused').length;
    progress(`${paused} of ${count} hosts are paused`);
    if (paused >= count || performance.now() > until) return paused;
    await delay(500);
  }
}
