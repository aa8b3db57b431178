import { setTimeout as delay } from 'node:timers/promises';
import { constants } from 'node:fs';
import { access, mkdir, readFile, rmdir } from 'node:fs/promises';
import path from 'node:path';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { killUntilGone } from '../../../lib/kill-until-gone.ts';
import { writeKernelFile } from '../../../lib/write-kernel-file.ts';

const controllers = ['memory', 'cpu', 'pids'] as const;
const root = '/sys/fs/cgroup';

/**
 * QEMU's memory besides the guest's, in MiB: its own pages, the translation cache, and the disk's page cache, which
 * the kernel reclaims before it fails an allocation.
 */
const overheadMib = 512;
/** QEMU can have up to 64 disk threads. */
const mostProcesses = 128;
const longestBusyMs = 2_000;
/** Freeing a QEMU's memory takes a moment; it takes longer only if the node is in trouble. */
const longestEndMs = 30_000;

/** The control groups of this installation's hosts, on cgroup v1 and v2. */
export interface Cgroups {
  /**
   * Makes the group of a VM with its limits; returns its folders, one per hierarchy.
   * @throws HypervisorError if one of the limits can't be set.
   */
  make(id: string, shape: HostShape): Promise<readonly string[]>;
  /** Sets what a VM gets of processors for which several compete: 1 is the usual weight. Nothing happens if it has ended. */
  weigh(id: string, weight: number): Promise<void>;
  /** The limits in force, one line each. */
  limits(id: string): Promise<readonly string[]>;
  /** The processes of a VM; empty if it does not run, whatever else exists. */
  processes(id: string): Promise<readonly number[]>;
  /** Waits until a VM has no process any more, but at most `timeoutMs` milliseconds. */
  untilEmpty(id: string, timeoutMs: number): Promise<void>;
  /**
   * Kills every process of a VM and waits until they are gone.
   * @throws HypervisorError if one stays, for example in uninterruptible sleep on a disk that does not answer.
   */
  kill(id: string): Promise<void>;
  /** @throws Error if a process runs in it. */
  remove(id: string): Promise<void>;
}

/**
 * With cgroup v1, systemd keeps the processes of a service in a hierarchy without controllers, or, in its hybrid mode, in
 * an additional v2 hierarchy. A VM that stayed in the service's group there would be killed when the service stops.
 */
const systemdHierarchies = ['systemd', 'unified'];

/** @throws HypervisorError if no hierarchy with memory, cpu and pids is writable. */
export async function openCgroups(site: string): Promise<Cgroups> {
  const unified = await isUnified();
  const parents = unified
    ? [path.join(root, `berth-${site}`)]
    : controllers.map((controller) => path.join(root, controller, `berth-${site}`));
  for (const parent of parents) {
    await mkdir(parent, { recursive: true }).catch((cause: unknown) => {
      throw new HypervisorError(`The control group ${parent} can't be made: cgroups must be writable`, {
        cause,
      });
    });
  }
  if (unified) await enableControllers([root, ...parents]);
  else parents.push(...(await makeSystemdGroups(site)));
  const folders = (id: string) => parents.map((parent) => path.join(parent, id));

  async function processes(id: string): Promise<readonly number[]> {
    const lists = await Promise.all(
      folders(id).map((folder) => readFile(path.join(folder, 'cgroup.procs'), 'utf8').catch(() => '')),
    );
    return [...new Set(lists.flatMap((list) => list.split('\n').filter(Boolean).map(Number)))];
  }

  return {
    processes,

    async make(id, shape) {
      for (const folder of folders(id)) await mkdir(folder, { recursive: true });
      for (const [file, value] of limitsFor(shape, unified)) {
        // On v1 each limit is a file in one of the hierarchies.
        const found: string[] = [];
        for (const folder of folders(id)) {
          const limit = path.join(folder, file);
          if (await writable(limit)) found.push(limit);
        }
        if (found.length === 0 && !ofSwap.has(file)) {
          throw new HypervisorError(
            `The control groups of ${id} have no ${file}: the VM would run without that limit`,
          );
        }
        for (const limit of found) await writeKernelFile(limit, value);
      }
      return folders(id);
    },

    async weigh(id, weight) {
      const { file, usual } = unified ? weightFiles.v2 : weightFiles.v1;
      for (const folder of folders(id)) {
        const target = path.join(folder, file);
        // On v1 only one of the hierarchies has it.
        if (!(await writable(target))) continue;
        await writeKernelFile(target, String(Math.round(weight * usual))).catch((error: unknown) => {
          // The VM has just ended, and its group was removed.
          if (!goneCodes.has((error as NodeJS.ErrnoException).code)) throw error;
        });
      }
    },

    async limits(id) {
      const files = folders(id).flatMap((folder) =>
        (unified ? limitFiles.v2 : limitFiles.v1).map((file) => path.join(folder, file)),
      );
      const values = await Promise.all(
        files.map((file) =>
          readFile(file, 'utf8').then(
            (text) => text.trim(),
            () => undefined,
          ),
        ),
      );
      return files.flatMap((file, index) => {
        const value = values[index];
        return value === undefined ? [] : [`${path.basename(file)} ${value}`];
      });
    },

    async untilEmpty(id, timeoutMs) {
      const deadline = performance.now() + timeoutMs;
      while ((await processes(id)).length > 0 && performance.now() < deadline) await delay(50);
    },

    async kill(id) {
      const left = await killUntilGone(() => processes(id), longestEndMs);
      if (left.length > 0) {
        throw new HypervisorError(
          `Processes of ${id} have not ended ${longestEndMs / 1000} s after they were killed: ${left.join(', ')}. Look at what they wait for (/proc/PID/stack)`,
        );
      }
    },

    async remove(id) {
      for (const folder of folders(id)) await removeGroup(folder);
    },
  };
}

/** Without systemd, its hierarchies may be missing or read-only, and nothing kills by them. */
async function makeSystemdGroups(site: string): Promise<readonly string[]> {
  const groups: string[] = [];
  for (const name of systemdHierarchies) {
    if (!(await writable(path.join(root, name, 'cgroup.procs')))) continue;
    const group = path.join(root, name, `berth-${site}`);
    await mkdir(group, { recursive: true });
    groups.push(group);
  }
  return groups;
}

/** The group of a process that has just ended stays busy for a moment, although it lists no process. */
async function removeGroup(folder: string): Promise<void> {
  const deadline = performance.now() + longestBusyMs;
  for (;;) {
    try {
      await rmdir(folder);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return;
      if (code !== 'EBUSY' || performance.now() >= deadline) throw error;
    }
    await delay(5);
  }
}

/** Of a write to a file of a group that is removed at the same moment. */
const goneCodes: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ENODEV']);

/** Their usual values are the kernel's (cgroups(7), cpu.shares and cpu.weight). */
const weightFiles = {
  v2: { file: 'cpu.weight', usual: 100 },
  v1: { file: 'cpu.shares', usual: 1024 },
} as const;

const limitFiles = {
  v2: ['memory.max', 'memory.swap.max', 'cpu.max', 'pids.max'],
  v1: [
    'memory.limit_in_bytes',
    'memory.memsw.limit_in_bytes',
    'memory.swappiness',
    'cpu.cfs_period_us',
    'cpu.cfs_quota_us',
    'pids.max',
  ],
} as const;
/** Names of the files that contain a VM's limits. */
export const limitFileNames: readonly string[] = [...limitFiles.v2, ...limitFiles.v1];
type LimitFile = (typeof limitFiles)['v1' | 'v2'][number];
/** These files do not exist if swap accounting is off. */
const ofSwap: ReadonlySet<LimitFile> = new Set([
  'memory.swap.max',
  'memory.memsw.limit_in_bytes',
  'memory.swappiness',
]);

/** In the order in which they are set. */
function limitsFor(shape: HostShape, unified: boolean): readonly (readonly [LimitFile, string])[] {
  const bytes = String((shape.memoryMib + overheadMib) * 1024 * 1024);
  // Half a CPU besides the guest's, for disk and network I/O.
  const quota = String(Math.round((shape.vcpus + 0.5) * 100_000));
  const pids = String(mostProcesses);
  if (unified) {
    return [
      ['memory.max', bytes],
      ['memory.swap.max', '0'],
      ['cpu.max', `${quota} 100000`],
      ['pids.max', pids],
    ];
  }
  return [
    // The memory limit can't be raised above the limit of memory and swap together.
    ['memory.memsw.limit_in_bytes', '-1'],
    ['memory.limit_in_bytes', bytes],
    ['memory.memsw.limit_in_bytes', bytes],
    ['memory.swappiness', '0'],
    ['cpu.cfs_period_us', '100000'],
    ['cpu.cfs_quota_us', quota],
    ['pids.max', pids],
  ];
}

/** Whether the unified hierarchy (v2) has the controllers that we need; otherwise v1 must. */
async function isUnified(): Promise<boolean> {
  const available = await readFile(path.join(root, 'cgroup.controllers'), 'utf8').catch(() => '');
  return controllers.every((controller) => available.split(/\s+/).includes(controller));
}

async function enableControllers(parents: readonly string[]): Promise<void> {
  const wanted = controllers.map((controller) => `+${controller}`).join(' ');
  for (const parent of parents) {
    await writeKernelFile(path.join(parent, 'cgroup.subtree_control'), wanted).catch((cause: unknown) => {
      throw new HypervisorError(
        `${controllers.join(', ')} can't be limited below the control group ${parent}: it must be the node's root group, or contain no processes`,
        { cause },
      );
    });
  }
}

async function writable(file: string): Promise<boolean> {
  return access(file, constants.W_OK).then(
    () => true,
    () => false,
  );
}
