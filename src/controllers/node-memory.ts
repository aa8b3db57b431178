import { readFile } from 'node:fs/promises';

/** Memory of the node that can be used without swapping, in MiB: MemAvailable of /proc/meminfo (proc(5)). */
export async function availableMib(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1];
  if (kib === undefined) throw new Error('/proc/meminfo has no line MemAvailable');
  return Number(kib) / 1024;
}
