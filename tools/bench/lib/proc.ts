import { execFile } from 'node:child_process';
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { qemuProgram } from '../../../src/hypervisors/qemu/launch/arguments.ts';
import { processesWith } from '../../lib/residue.ts';

const run = promisify(execFile);

/**
 * Pins all threads of a process, and every child that it starts from now on, to these cores (sched_setaffinity(2)).
 * @param cores one or a range, in the form of taskset(1): `0`, `0-3`.
 */
export async function pin(pid: number, cores: string): Promise<void> {
  await run('taskset', ['--all-tasks', '--cpu-list', '--pid', cores, String(pid)]);
}

/** CPU time that a process has used, in seconds (proc(5), stat: utime and stime, in ticks of 10 ms). */
export async function cpuSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The program's name, in parentheses, may contain blanks and parentheses.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Resident set size of a process, in MiB. */
export async function rssMib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) / 1024;
}

/** Proportional set size of a process, in MiB. */
export async function pssMib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) / 1024;
}

/** Memory that is available on the node, in MiB (proc(5), MemAvailable). */
export async function availableMib(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  return Number(/^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) / 1024;
}

/**
 * The QEMU processes of an installation's hosts, without jail launchers and the VM that becomes a template.
 * @param site the site id.
 */
export async function vmPids(site: string): Promise<readonly number[]> {
  return (await processesWith(`berth-${site}-`))
    .filter(({ command }) => command.startsWith(qemuProgram) && !command.includes(`berth-${site}-template`))
    .map(({ pid }) => pid);
}

/**
 * Process id of a broker's api, gateway or worker.
 * @throws Error if it doesn't run.
 */
export async function processOf(stateDirectory: string, name: string): Promise<number> {
  for (const { pid } of await processesWith(`main.js\0${name}`)) {
    const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
    if (environment.includes(`BERTH_STATE_DIR=${stateDirectory}\0`)) return pid;
  }
  throw new Error(`the bench's ${name} does not run`);
}

/** Anonymous memory (memfd_create(2)) that a process has descriptors of, in MiB: the pages that exist, each file once. */
export async function memfdMib(pid: number): Promise<number> {
  const directory = `/proc/${pid}/fd`;
  const bytes = new Map<number, number>();
  for (const descriptor of await readdir(directory)) {
    const file = `${directory}/${descriptor}`;
    // One that was closed meanwhile is not counted.
    if (!(await readlink(file).catch(() => '')).startsWith('/memfd:')) continue;
    const found = await stat(file).catch(() => undefined);
    if (found !== undefined) bytes.set(found.ino, found.blocks * 512);
  }
  return [...bytes.values()].reduce((sum, one) => sum + one, 0) / 1024 ** 2;
}
