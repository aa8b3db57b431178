import { readFile } from 'node:fs/promises';
import type { Metering } from '../../core/hypervisor/metering.ts';
import type { QemuDeps } from './deps.ts';

export function createMetering({ cgroups }: Pick<QemuDeps, 'cgroups'>): Metering {
  return {
    async memoryUsage(hostId) {
      const processes = await cgroups.processes(hostId);
      if (processes.length === 0) return undefined;
      const sizes = await Promise.all(processes.map(proportionalKib));
      return { pssMib: sizes.reduce((sum, size) => sum + size, 0) / 1024 };
    },
  };
}

/** Proportional set size of a process in KiB (proc(5), smaps_rollup); 0 if it has just ended. */
async function proportionalKib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0);
}
