import { readFile } from 'node:fs/promises';
import { processesWith } from '../../lib/residue.ts';
import { qemuProgram } from '../../../src/hypervisors/qemu/launch/arguments.ts';

/** What the machine's memory can still take, in MiB (proc(5), MemAvailable). */
export async function availableMib(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  return Number(/^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) / 1024;
}

/** Proportional set size of a process, in MiB. */
export async function pssMib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) / 1024;
}

/** Processor time that a process has used, in seconds (proc(5), stat: utime and stime, in ticks of 10 ms). */
export async function cpuSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The name of the program, in parentheses, may hold anything.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** The QEMU processes of an installation's hosts; what made their jails, or is to be a template, is left out. */
export async function machinesOf(site: string): Promise<readonly number[]> {
  return (await processesWith(`berth-${site}-`))
    .filter(({ command }) => command.startsWith(qemuProgram) && !command.includes(`berth-${site}-template`))
    .map(({ pid }) => pid);
}
