import { quietLogger } from '../lib/quiet-logger.ts';
import { randomUUID } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { noRegistries, type HostSpec } from '../../../src/core/hypervisor/host-spec.ts';
import { imageSuites } from '../../../src/core/hypervisor/images.ts';
import type { Hypervisor } from '../../../src/core/hypervisor/hypervisor.ts';
import { removeInstallationTraces } from '../../lib/residue.ts';
import { ensureGuestImage } from '../../../src/hypervisors/qemu/image/build-image.ts';
import type { Jail } from '../../../src/hypervisors/qemu/launch/jail.ts';
import { probeKvm } from '../../../src/hypervisors/qemu/node/kvm.ts';
import type { PageSharing, QemuOptions } from '../../../src/hypervisors/qemu/options.ts';
import { createQemuHypervisor } from '../../../src/hypervisors/qemu/qemu.ts';
import { projectDirectory } from '../../../src/lib/project-directory.ts';
import { type Figure, figure } from '../lib/figures.ts';
import { median } from '../lib/statistics.ts';

const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };
/** Installation id, different from that of the bench's broker. */
const site = 'be7c';
const checkedHosts = 5;

/** What the launcher starts without one: user, limits, system call filter and network namespace stay. */
const noJail: Jail = { command: (command) => command };

type Way = 'jailed' | 'unjailed' | 'copied';

/**
 * What isolation costs: a restore (disk, network, VM) in the jail and outside of one, with pages shared and
 * not, alternating in one run; and a check of a running host against its manifest. Without a broker: the driver is
 * called directly, because an operator can't switch the jail off.
 */
export async function isolationFigures(
  options: { runs: number; cacheDirectory: string },
  progress: (line: string) => void,
): Promise<readonly Figure[]> {
  const stateDirectory = await mkdtemp('/var/tmp/berth-bench-');
  await chmod(stateDirectory, 0o755);
  for (const name of ['images', 'templates', 'disks']) {
    await mkdir(path.join(options.cacheDirectory, name), { recursive: true, mode: 0o755 });
    await symlink(path.join(options.cacheDirectory, name), path.join(stateDirectory, name));
  }
  const drivers: Hypervisor[] = [];
  const driver = async (pageSharing: PageSharing, jail?: Jail) => {
    const made = await createQemuHypervisor(
      { ...(await driverOptions(stateDirectory)), pageSharing },
      jail === undefined ? {} : { jail },
    );
    drivers.push(made);
    await made.open();
    await made.makeTemplate(progress, new AbortController().signal);
    return made;
  };
  const hosts: string[] = [];
  try {
    const ways: Record<Way, Hypervisor> = {
      jailed: await driver('template'),
      unjailed: await driver('template', noJail),
      copied: await driver('none'),
    };
    let slot = 0;
    const restore = async (way: Way): Promise<{ spec: HostSpec; ms: number }> => {
      slot += 1;
      const spec: HostSpec = {
        hostId: randomUUID(),
        slot,
        planName: 'small',
        shape,
        publishedPorts: { first: 32_000 + 2 * slot, count: 2 },
        egress: { kind: 'none' },
        registries: noRegistries,
      };
      hosts.push(spec.hostId);
      const begun = performance.now();
      await ways[way].prepare(spec);
      await ways[way].start(spec);
      return { spec, ms: performance.now() - begun };
    };
    const names = Object.keys(ways) as Way[];
    const times: Record<Way, number[]> = { jailed: [], unjailed: [], copied: [] };
    const sizes: Record<Way, number[]> = { jailed: [], unjailed: [], copied: [] };
    // The first of each loads the template into memory, once in a worker's life.
    for (const way of names) await ways[way].destroy((await restore(way)).spec.hostId);
    for (let run = 1; run <= options.runs; run += 1) {
      for (const way of names) {
        progress(`isolation, run ${run} of ${options.runs}: ${way}`);
        const { spec, ms } = await restore(way);
        times[way].push(ms);
        while (!(await ways[way].identify(spec))) await delay(20);
        sizes[way].push(await chargedMib(spec.hostId));
        await ways[way].destroy(spec.hostId);
      }
    }
    progress('isolation: checks of running hosts');
    const checked: string[] = [];
    for (let count = 0; count < checkedHosts; count += 1) {
      const { spec } = await restore('jailed');
      while (!(await ways.jailed.identify(spec))) await delay(20);
      await ways.jailed.connect(spec);
      checked.push(spec.hostId);
    }
    // The first check of all reads the template and the image.
    const firstBegun = performance.now();
    await ways.jailed.verify(checked[0] ?? '');
    const first = performance.now() - firstBegun;
    const begun = performance.now();
    for (const hostId of checked) {
      const found = await ways.jailed.verify(hostId);
      if (found.length > 0) throw new Error(`an unchanged host shows drift: ${JSON.stringify(found)}`);
    }
    const each = (performance.now() - begun) / checked.length;
    return [
      figure('jail.restore_ms', median(times.jailed), 'ms'),
      figure('jail.without_ms', median(times.unjailed), 'ms'),
      figure('jail.added_ms', median(times.jailed) - median(times.unjailed), 'ms'),
      figure('page_sharing.template.restore_ms', median(times.jailed), 'ms'),
      figure('page_sharing.none.restore_ms', median(times.copied), 'ms'),
      figure('page_sharing.template.memory_mib', median(sizes.jailed), 'MiB'),
      figure('page_sharing.none.memory_mib', median(sizes.copied), 'MiB'),
      figure('integrity.first_check_ms', first, 'ms'),
      figure('integrity.check_ms', each, 'ms'),
      figure('integrity.check_20_hosts_s', (each * 20) / 1000, 's'),
    ];
  } finally {
    for (const hostId of hosts) await drivers[0]?.destroy(hostId);
    for (const made of drivers) await made.close();
    await removeInstallationTraces(site);
    await rm(stateDirectory, { recursive: true, force: true });
  }
}

/** What the kernel charges to a host's control group: its private memory, and pages of files that it read first. */
async function chargedMib(hostId: string): Promise<number> {
  const files = [
    `/sys/fs/cgroup/memory/berth-${site}/${hostId}/memory.usage_in_bytes`,
    `/sys/fs/cgroup/berth-${site}/${hostId}/memory.current`,
  ];
  for (const file of files) {
    const text = await readFile(file, 'utf8').catch(() => undefined);
    if (text !== undefined) return Number(text) / 1024 ** 2;
  }
  throw new Error(`the control group of host ${hostId} does not report its memory use`);
}

async function driverOptions(stateDirectory: string): Promise<Omit<QemuOptions, 'pageSharing'>> {
  const image = await ensureGuestImage(
    {
      imagesDirectory: path.join(stateDirectory, 'images'),
      recipeDirectory: path.join(projectDirectory(), 'image'),
      suite: imageSuites[0],
    },
    () => undefined,
    new AbortController().signal,
  );
  const { accelerator } = await probeKvm(path.join(stateDirectory, 'kvm.json'));
  return {
    site,
    stateDirectory,
    runDirectory: `/run/berth-${site}`,
    libexecDirectory: path.join(projectDirectory(), 'libexec'),
    image,
    ensureImage: () => Promise.resolve(image),
    accelerator,
    hostNetwork: '10.215.0.0/24',
    firstUid: 650_016,
    gatewayUid: 650_001,
    dnsServers: [],
    denyNetworks: [],
    hostLimits: { connections: 4096, bandwidthMbit: 1000 },
    room: { vcpus: 16, memoryMib: 32_768, diskGib: 1024 },
    loadAhead: false,
    logger: quietLogger,
  };
}
