import { setTimeout as delay } from 'node:timers/promises';
import { constants } from 'node:fs';
import { access, mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

const controllers = ['memory', 'cpu', 'pids'] as const;
const root = '/sys/fs/cgroup';

/**
 * What QEMU needs besides the guest's memory: its own pages, the translation cache, and page cache of the
 * disk, which the kernel takes back before it refuses anything. In MiB.
 */
const overheadMib = 512;
/** QEMU's disk threads can reach 64. */
const mostProcesses = 128;
const longestBusyMs = 2_000;
/** A QEMU's memory is freed in a moment, unless the machine is in trouble. */
const longestEndMs = 30_000;

/** The control groups of this installation's hosts, on cgroup v1 as on v2. */
export interface Cgroups {
  /**
   * Makes the group of a machine with its limits; returns its folders, one a hierarchy.
   * @throws HypervisorError where one of the limits can not be set.
   */
  make(id: string, shape: HostShape): Promise<readonly string[]>;
  /** The limits that are in force, a line each. */
  limits(id: string): Promise<readonly string[]>;
  /** The processes of a machine. None: it does not run, whatever else is there. */
  processes(id: string): Promise<readonly number[]>;
  /** Waits until a machine has no process any more; at most so many milliseconds. */
  untilEmpty(id: string, timeoutMs: number): Promise<void>;
  /**
   * Ends every process of a machine, and waits until they are gone.
   * @throws HypervisorError where one does not go: the kernel keeps it, as behind a disk that does not answer.
   */
  kill(id: string): Promise<void>;
  /** @throws Error where something runs in it. */
  remove(id: string): Promise<void>;
}

/** @throws HypervisorError where no hierarchy with memory, cpu and pids can be written. */
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
        // On v1 each limit is a file of one hierarchy.
        const found: string[] = [];
        for (const folder of folders(id)) {
          const limit = path.join(folder, file);
          if (await writable(limit)) found.push(limit);
        }
        if (found.length === 0 && !ofSwap.has(file)) {
          throw new HypervisorError(
            `The control groups of ${id} have no ${file}: it would run without a limit`,
          );
        }
        for (const limit of found) await writeFile(limit, value);
      }
      return folders(id);
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
      const deadline = performance.now() + longestEndMs;
      for (let left = await processes(id); left.length > 0; left = await processes(id)) {
        if (performance.now() > deadline) {
          throw new HypervisorError(
            `Processes of ${id} have not ended ${longestEndMs / 1000} s after they were killed: ${left.join(', ')}. The kernel keeps them: look at what they wait for (/proc/PID/stack)`,
          );
        }
        for (const pid of left) {
          try {
            process.kill(pid, 'SIGKILL');
          } catch {
            // It has just ended.
          }
        }
        await delay(5);
      }
    },

    async remove(id) {
      for (const folder of folders(id)) await removeGroup(folder);
    },
  };
}

/** A process that has just ended is listed no more, and yet its group stays busy for a moment. */
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
type LimitFile = (typeof limitFiles)['v1' | 'v2'][number];
/** Swap accounting may be off. */
const ofSwap: ReadonlySet<LimitFile> = new Set([
  'memory.swap.max',
  'memory.memsw.limit_in_bytes',
  'memory.swappiness',
]);

/** In the order in which they are set. */
function limitsFor(shape: HostShape, unified: boolean): readonly (readonly [LimitFile, string])[] {
  const bytes = String((shape.memoryMib + overheadMib) * 1024 * 1024);
  // Half a processor besides the guest's own, for disk and network.
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
    // Memory can't be raised above what memory and swap may be together.
    ['memory.memsw.limit_in_bytes', '-1'],
    ['memory.limit_in_bytes', bytes],
    ['memory.memsw.limit_in_bytes', bytes],
    ['memory.swappiness', '0'],
    ['cpu.cfs_period_us', '100000'],
    ['cpu.cfs_quota_us', quota],
    ['pids.max', pids],
  ];
}

/** Whether the unified hierarchy (v2) has what we need; else the one of v1 must. */
async function isUnified(): Promise<boolean> {
  const available = await readFile(path.join(root, 'cgroup.controllers'), 'utf8').catch(() => '');
  return controllers.every((controller) => available.split(/\s+/).includes(controller));
}

async function enableControllers(parents: readonly string[]): Promise<void> {
  const wanted = controllers.map((controller) => `+${controller}`).join(' ');
  for (const parent of parents) {
    await writeFile(path.join(parent, 'cgroup.subtree_control'), wanted).catch((cause: unknown) => {
      throw new HypervisorError(
        `${controllers.join(', ')} can't be limited below the control group ${parent}: it must be the machine's own root, or have no processes`,
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
