import { siteId } from '../../../src/config/secrets.ts';
import { connectPlatform } from '../../lib/platform.ts';
import { startBroker } from '../lib/broker.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { availableMib } from '../lib/proc.ts';
import { median, p95 } from '../lib/statistics.ts';
import { createFleet, type Fleet, type Tenant, twoAtATime } from './fleet.ts';
import { errorMessage } from '../../../src/lib/error-message.ts';

const host = { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 0 };
const planId = 'density';
/** A hundred containers need some 11 MiB each, more than a small host has. */
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
          description: 'For many containers: with one host, a template would save nothing',
          free: true,
          host: { ...host, vcpus: 2, memory_mib: 2048 },
          idle: 'run',
          template: 'never',
        },
      ],
    },
  ],
};

/** Containers in one host, compared with as many hosts with one container each. */
const sideBySide = 100;
/** More hosts than these keep two processors under emulation so busy that only their queue would be measured. */
const mostRunning = 30;
/** `docker run` is timed on one host each time this many hosts were added. */
const every = 10;
/** Number of hosts that are woken once the node is full. */
const asked = 20;
/** The broker's answer if memory (src/core/memory-admission.ts) or host slots (src/core/broker/provision.ts) run out. */
const refusedAsFull = /^the broker answered 503: (The node is out of memory|This broker is full)\b/;

export interface DensityOptions {
  /** Paused hosts at the same time. */
  readonly hosts: number;
  /** Maximum number of paused hosts, if the broker refuses none earlier. */
  readonly most: number;
  /** Memory of the node that hosts may not use, in MiB. */
  readonly reserveMib: number;
  /** Whether a hundred containers are measured as well, in one host and in a host each: most of the time goes there. */
  readonly containers: boolean;
  readonly cacheDirectory: string;
}

/**
 * The cost of an idle running host, a paused one, a suspended one and one with a container; how fast paused and suspended ones
 * answer; how long `docker run` takes as the number of hosts grows; then more paused hosts until the broker refuses one; last,
 * one host with many containers, as a tenant uses it.
 * @param measured receives all figures so far, each time there are more.
 */
export async function densitySuite(
  options: DensityOptions,
  progress: (line: string) => void,
  measured: (soFar: readonly Figure[]) => Promise<void>,
): Promise<readonly Figure[]> {
  const figures: Figure[] = [];
  const add = (more: readonly Figure[]) => {
    figures.push(...more);
    return measured(figures);
  };
  const broker = await startBroker(catalog, options.cacheDirectory, progress, {
    // A block of ports for each host, and memory as far as it goes.
    BERTH_PUBLISHED_PORTS: '20000-39999',
    BERTH_MEMORY_OVERCOMMIT: '99',
    BERTH_MEMORY_RESERVE_MIB: String(options.reserveMib),
    // No integrity check during a measurement.
    BERTH_INTEGRITY_SECONDS: '86400',
  });
  let fleet: Fleet | undefined;
  try {
    const { stateDirectory } = broker.settings;
    fleet = createFleet(
      await connectPlatform(broker.settings),
      await siteId(broker.settings),
      stateDirectory,
    );
    const tenants: Tenant[] = [];
    await add(await runningHosts(fleet, tenants, options, progress));
    await add(await pausedHosts(fleet, tenants, options, progress));
    await add(await suspendedHosts(fleet, tenants, progress));
    if (options.containers) await add(await hostsWithOneContainer(fleet, tenants, progress));
    await add(await fullOfPausedHosts(fleet, tenants, options, progress));
    for (const [index, tenant] of tenants.entries()) {
      progress(`deleting host ${index + 1} of ${tenants.length}`);
      await fleet.remove(tenant);
    }
    if (options.containers) await add(await loneHost(fleet, progress));
    return figures;
  } finally {
    await fleet?.dispose();
    await broker.stop();
  }
}

async function runningHosts(
  fleet: Fleet,
  tenants: Tenant[],
  { hosts }: DensityOptions,
  progress: (line: string) => void,
): Promise<Figure[]> {
  const count = Math.min(hosts, mostRunning);
  const runs: Figure[] = [];
  while (tenants.length < count) {
    progress(`running host ${tenants.length + 1} of ${count}`);
    tenants.push(await fleet.add(planId));
    if (tenants.length === 1 || tenants.length % every === 0) {
      runs.push(
        figure(
          `density.docker_run_ms_beside_${tenants.length}_running`,
          await runOnFirst(fleet, tenants),
          'ms',
        ),
      );
    }
  }
  progress('measuring the cost of idle running hosts');
  const { pss, cpuShare } = await fleet.cost();
  return [
    figure('density.running_hosts', count, 'count'),
    figure('density.running.pss_mib', median(pss), 'MiB'),
    figure('density.running.cpu_share_each', cpuShare / count, 'cores'),
    ...runs,
  ];
}

async function pausedHosts(
  fleet: Fleet,
  tenants: Tenant[],
  { hosts }: DensityOptions,
  progress: (line: string) => void,
): Promise<Figure[]> {
  progress('pausing the hosts');
  await fleet.pause(tenants);
  const runs: Figure[] = [];
  while (tenants.length < hosts) {
    progress(`paused host ${tenants.length + 1} of ${hosts}`);
    const tenant = await fleet.add(planId);
    tenants.push(tenant);
    await fleet.pause([tenant]);
    if (tenants.length % (2 * every) === 0) {
      runs.push(
        figure(
          `density.docker_run_ms_beside_${tenants.length}_paused`,
          await runOnFirst(fleet, tenants),
          'ms',
        ),
      );
      await fleet.pause(tenants.slice(0, 1));
    }
  }
  progress('measuring the cost of paused hosts');
  const count = await fleet.paused();
  const { pss, cpuShare } = await fleet.cost();
  const wakes = await wakeEach(fleet, tenants, progress);
  return [
    figure('density.hosts', tenants.length, 'count'),
    figure('density.paused_hosts', Math.min(count, wakes.filter((ms) => ms <= 1_000).length), 'count'),
    figure('density.paused.pss_mib', median(pss), 'MiB'),
    figure('density.paused.cpu_share_each', cpuShare / count, 'cores'),
    figure('density.wake.answered', wakes.length, 'count'),
    ...wakeFigures('density.wake', wakes),
    ...runs,
  ];
}

async function suspendedHosts(
  fleet: Fleet,
  tenants: readonly Tenant[],
  progress: (line: string) => void,
): Promise<Figure[]> {
  progress('suspending the hosts');
  const before = await availableMib();
  await fleet.suspend(tenants);
  const freed = (await availableMib()) - before;
  const images = await fleet.imagesMib(tenants);
  const wakes = await wakeEach(fleet, tenants, progress);
  return [
    figure('density.suspended.freed_mib', freed / tenants.length, 'MiB'),
    figure('density.suspended.disk_mib', median(images), 'MiB'),
    figure('density.suspended.wake.answered', wakes.length, 'count'),
    ...wakeFigures('density.suspended.wake', wakes),
  ];
}

/** Wakes one after the other among others that stay asleep, and pauses each again; how long each took, of those that answered. */
async function wakeEach(
  fleet: Fleet,
  tenants: readonly Tenant[],
  progress: (line: string) => void,
): Promise<number[]> {
  const wakes: number[] = [];
  for (const [index, tenant] of tenants.entries()) {
    progress(`waking host ${index + 1} of ${tenants.length}`);
    const took = await fleet.timedPing(tenant);
    if (took !== undefined) wakes.push(took);
    await fleet.pause([tenant]);
  }
  return wakes;
}

/** Empty if no host answered. */
const wakeFigures = (name: string, wakes: readonly number[]): Figure[] =>
  wakes.length === 0
    ? []
    : [figure(`${name}.p50_ms`, median(wakes), 'ms'), figure(`${name}.p95_ms`, p95(wakes), 'ms')];

async function hostsWithOneContainer(
  fleet: Fleet,
  tenants: readonly Tenant[],
  progress: (line: string) => void,
): Promise<Figure[]> {
  const withContainer = tenants.slice(0, sideBySide);
  let begun = 0;
  await twoAtATime(withContainer, async (tenant) => {
    progress(`a container on host ${(begun += 1)} of ${withContainer.length}`);
    await fleet.runContainer(tenant);
    await fleet.pause([tenant]);
  });
  // The figure's name contains the number, so with fewer hosts it is omitted.
  return withContainer.length < sideBySide
    ? []
    : [figure('density.hosts_100_pss_mib', await fleet.pssOfAll(), 'MiB')];
}

/** Makes further hosts and pauses each, until the broker refuses one: then some of them are woken. */
async function fullOfPausedHosts(
  fleet: Fleet,
  tenants: Tenant[],
  { most, reserveMib }: DensityOptions,
  progress: (line: string) => void,
): Promise<Figure[]> {
  let refusal: string | undefined;
  while (tenants.length < most && refusal === undefined) {
    progress(`paused host ${tenants.length + 1}`);
    try {
      const tenant = await fleet.add(planId);
      tenants.push(tenant);
      await fleet.pause([tenant]);
    } catch (error) {
      const message = errorMessage(error);
      if (!refusedAsFull.test(message)) throw error;
      refusal = message;
    }
  }
  progress(`no further host: ${refusal ?? 'the requested maximum (--most) is reached'}`);
  const step = Math.ceil(tenants.length / asked);
  const some = tenants.filter((_, index) => index % step === 0);
  const wakes = await wakeEach(fleet, some, progress);
  return [
    figure('density.full.reserve_mib', reserveMib, 'MiB'),
    figure('density.full.hosts', tenants.length, 'count'),
    figure('density.full.refused', refusal === undefined ? 0 : 1, 'count'),
    figure('density.full.wake.asked', some.length, 'count'),
    figure('density.full.wake.answered', wakes.length, 'count'),
    ...wakeFigures('density.full.wake', wakes),
  ];
}

async function loneHost(fleet: Fleet, progress: (line: string) => void): Promise<Figure[]> {
  progress('booting one host for many containers');
  const lone = await fleet.add(loneId);
  await twoAtATime(Array.from({ length: sideBySide }), async (_, index) => {
    progress(`container ${index + 1} of ${sideBySide} on one host`);
    await fleet.runContainer(lone);
  });
  const size = await fleet.pssOfAll();
  await fleet.remove(lone);
  return [figure('density.containers_100_pss_mib', size, 'MiB')];
}

async function runOnFirst(fleet: Fleet, [first]: readonly Tenant[]): Promise<number> {
  if (first === undefined) throw new Error('there is no host');
  return fleet.timedRun(first);
}
