import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { diskRates } from '../disk/disk-rate.ts';
import { qemuProgram } from '../launch/arguments.ts';
import type { Cgroups } from '../launch/cgroups.ts';
import { requestedMemory } from '../launch/growth.ts';
import type { Facts } from './manifest.ts';
import type { HostLayout } from '../layout.ts';
import { type Qmp, withQmp } from '../launch/qmp.ts';
import { processesOf } from '../launch/leaked-processes.ts';

/** A monitor that takes longer was blocked, its QEMU hangs, or the node is busy. Milliseconds. */
const monitorTimeoutMs = 3_000;

/**
 * Facts about a running VM from the kernel and QEMU's monitor: proc(5), cgroups(7), QMP. Takes some 10 ms.
 * @param unanswered returns what to record as devices if the monitor does not answer.
 * @throws HypervisorError if no QEMU runs or its monitor does not answer.
 */
export async function vmFacts(
  layout: HostLayout,
  cgroups: Cgroups,
  unanswered: (error: unknown) => readonly string[] = fail,
): Promise<Facts> {
  const [pid, pids] = await Promise.all([qemuOf(layout, cgroups), cgroups.processes(layout.id)]);
  const proc = (name: string) => readFile(`/proc/${pid}/${name}`, 'utf8');
  const [status, argv, statLine, limits, mounts, memberships, oomScore, devices] = await Promise.all([
    proc('status'),
    proc('cmdline'),
    proc('stat'),
    proc('limits'),
    proc('mountinfo'),
    proc('cgroup'),
    proc('oom_score_adj'),
    devicesOf(layout).catch(unanswered),
  ]);
  const statusLines = (names: RegExp) =>
    status
      .split('\n')
      .filter((line) => names.test(line))
      .map((line) => line.replaceAll(/\s+/g, ' ').trim());
  return {
    // proc(5): field 22 is the start time; field 2, in parentheses, may contain anything.
    process: [`pid ${pid} started at ${statLine.slice(statLine.lastIndexOf(')')).split(' ')[20] ?? ''}`],
    argv: argv
      .split('\0')
      .slice(0, -1)
      .map((argument, index) => `${index}: ${argument}`),
    user: statusLines(/^(Uid|Gid|Groups):/),
    privileges: statusLines(/^(Cap\w+|NoNewPrivs|Seccomp):/),
    namespaces: await namespacesOf(pid, layout),
    mounts: mounts.split('\n').filter(Boolean).map(mountLine),
    rlimits: [
      ...limits
        .split('\n')
        .slice(1)
        .filter(Boolean)
        .map((line) => line.replaceAll(/\s+/g, ' ').trim()),
      // VMs that version 0.2 started have none, and no line in their manifests.
      ...(oomScore.trim() === '0' ? [] : [`oom_score_adj ${oomScore.trim()}`]),
    ],
    cgroup: [
      ...memberships
        .split('\n')
        .filter((line) => line.includes(layout.id))
        .map((line) => line.replace(/^\d+:/, 'member of ')),
      ...(await cgroups.limits(layout.id)),
      ...(await Promise.all(pids.map(async (one) => `process ${await commandOf(one)}`))).sort(),
    ],
    files: await filesOf(pid),
    devices,
  };
}

function fail(error: unknown): never {
  throw error;
}

/**
 * The process id of a VM's QEMU. One that was moved out of its control group is drift, not an ended VM.
 * @throws HypervisorError if no QEMU runs.
 */
export async function qemuOf(layout: HostLayout, cgroups: Cgroups): Promise<number> {
  const pid =
    (await qemuAmong(await cgroups.processes(layout.id))) ?? (await qemuAmong(await processesOf(layout)));
  if (pid === undefined) throw new HypervisorError(`the VM of host ${layout.id} does not run`);
  return pid;
}

async function qemuAmong(pids: readonly number[]): Promise<number | undefined> {
  for (const pid of pids) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.startsWith(`${qemuProgram}\0`)) return pid;
  }
  return undefined;
}

const commandOf = async (pid: number) =>
  (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => 'ended')).trim();

async function namespacesOf(pid: number, layout: HostLayout): Promise<string[]> {
  const names = (await readdir(`/proc/${pid}/ns`)).filter((name) => !name.endsWith('_for_children'));
  const links = await Promise.all(names.map((name) => readlink(`/proc/${pid}/ns/${name}`)));
  const own = await stat(layout.netnsPath).catch(() => undefined);
  return [...links.sort(), `${layout.netns} is net:[${own?.ino ?? 'missing'}]`];
}

/** proc(5), mountinfo: root of the mount, mount point and options; the ids before them vary. */
function mountLine(line: string): string {
  const [, , , root = '', point = '', options = ''] = line.split(' ');
  return `${root} on ${point} (${options})`;
}

/** The open files with their access mode. Pipes, sockets and anonymous inodes have no path. */
async function filesOf(pid: number): Promise<string[]> {
  const lines = new Set<string>();
  for (const descriptor of await readdir(`/proc/${pid}/fd`)) {
    const target = await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => '');
    if (!path.isAbsolute(target)) continue;
    const info = await readFile(`/proc/${pid}/fdinfo/${descriptor}`, 'utf8').catch(() => '');
    const flags = Number.parseInt(/^flags:\s+(\d+)/m.exec(info)?.[1] ?? '0', 8);
    lines.add(`${(flags & 3) === 0 ? 'read' : 'write'} ${target}`);
  }
  return [...lines].sort();
}

/**
 * Asks twice, because a busy node delays answers.
 * @throws HypervisorError if the monitor does not answer.
 */
async function devicesOf(layout: HostLayout): Promise<readonly string[]> {
  const ask = () =>
    withQmp(
      layout.qmpSocket,
      async (qmp) => [
        ...(await blockNodes(qmp)),
        ...(await diskRates(qmp)),
        ...(await characterDevices(qmp)),
        ...(await children(qmp, '/machine/peripheral')),
        ...(await children(qmp, '/machine/peripheral-anon')),
        ...(await children(qmp, '/objects')),
        ...(await pciDevices(qmp)),
        ...(await addedMemoryOf(qmp)),
      ],
      { timeoutMs: monitorTimeoutMs },
    );
  return (await ask().catch(ask)).toSorted();
}

/** Memory that was added to a VM. VMs that a former version of Berth started have no line in their manifests. */
async function addedMemoryOf(qmp: Qmp): Promise<string[]> {
  const bytes = await requestedMemory(qmp);
  return bytes === undefined ? [] : [`added memory: ${bytes / 1024 ** 2} MiB`];
}

async function blockNodes(qmp: Qmp): Promise<string[]> {
  const nodes = (await qmp.execute('query-named-block-nodes', { flat: true })) as readonly {
    'node-name': string;
    drv: string;
    ro: boolean;
    file: string;
    backing_file?: string;
  }[];
  return nodes.map(
    (node) =>
      `block node ${node['node-name']}: ${node.drv} ${node.ro ? 'read-only' : 'writable'} ${node.file} over ${node.backing_file ?? 'nothing'}`,
  );
}

async function characterDevices(qmp: Qmp): Promise<string[]> {
  const devices = (await qmp.execute('query-chardev')) as readonly { label: string; filename: string }[];
  // The rest of the name describes the current connection.
  return devices.map(
    ({ label, filename }) => `character device ${label}: ${filename.split(/[:,]/)[0] ?? ''}`,
  );
}

async function children(qmp: Qmp, at: string): Promise<string[]> {
  const properties = (await qmp.execute('qom-list', { path: at })) as readonly {
    name: string;
    type: string;
  }[];
  return properties
    .filter(({ type }) => type.startsWith('child<'))
    .map(({ name, type }) => `${at}/${name}: ${type.slice('child<'.length, -1)}`);
}

async function pciDevices(qmp: Qmp): Promise<string[]> {
  const buses = (await qmp.execute('query-pci')) as readonly {
    bus: number;
    devices: readonly { slot: number; function: number; id: { device: number; vendor: number } }[];
  }[];
  return buses.flatMap(({ bus, devices }) =>
    devices.map(
      ({ slot, function: fn, id }) =>
        `PCI ${bus}:${slot}.${fn} ${id.vendor.toString(16)}:${id.device.toString(16)}`,
    ),
  );
}
