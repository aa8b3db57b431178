import { readFile } from 'node:fs/promises';
import type { Metering } from '../../core/hypervisor/metering.ts';
import type { QemuDeps } from './deps.ts';

export function createMetering({ cgroups, hosts }: Pick<QemuDeps, 'cgroups' | 'hosts'>): Metering {
  return {
    async memoryUsage(hostId) {
      const processes = await cgroups.processes(hostId);
      if (processes.length === 0) return undefined;
      const sizes = await Promise.all(processes.map(proportionalKib));
      return { pssMib: sizes.reduce((sum, size) => sum + size, 0) / 1024 };
    },

    async processorTimes() {
      const times = await Promise.all(
        (await hosts.ids()).map(async (id) => {
          const used = await Promise.all((await cgroups.processes(id)).map(processorMs));
          return used.length === 0 ? [] : [[id, used.reduce((sum, ms) => sum + ms, 0)] as const];
        }),
      );
      return new Map(times.flat());
    },

    async setProcessorWeights(weights) {
      await Promise.all([...weights].map(([id, weight]) => cgroups.weigh(id, weight)));
    },
  };
}

/** Proportional set size of a process in KiB (proc(5), smaps_rollup); 0 if it has just ended. */
async function proportionalKib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0);
}

/** Processor time of all threads of a process in ms (proc(5), stat: utime and stime, in ticks of 10 ms); 0 if it has just ended. */
async function processorMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The program's name, in parentheses, may contain blanks and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) * 10;
}
