import { readFile } from 'node:fs/promises';

/** What the machine's memory can still take without swapping, in MiB, as its kernel reckons (proc(5), MemAvailable). */
export async function availableMib(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(text)?.[1];
  if (kib === undefined) throw new Error('/proc/meminfo does not say how much memory is available');
  return Number(kib) / 1024;
}
