import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { exists } from '../../../lib/exists.ts';

/**
 * Whether tenants' memory may be written to this machine's swap, where it would outlast its host. Control groups of
 * version 2 forbid it (`memory.swap.max`); those of version 1 only bound memory and swap together, and a swappiness
 * of 0 makes it rare.
 * @returns what to do about it, in words for operators; undefined where nothing is to be done.
 */
export async function swapProblem(
  swaps = '/proc/swaps',
  cgroupRoot = '/sys/fs/cgroup',
): Promise<string | undefined> {
  // proc(5): a line of headings, then a line for each.
  const active = (await readFile(swaps, 'utf8').catch(() => '')).trim().split('\n').slice(1);
  if (active.length === 0 || (await canForbid(cgroupRoot))) return undefined;
  const names = active.map((line) => line.split(/\s+/)[0] ?? '').join(', ');
  return `this machine swaps (${names}), and its control groups can't keep tenants' memory out of that: turn swap off, encrypt it, or use control groups of version 2`;
}

/** The root group has no limits; any other one tells. */
async function canForbid(cgroupRoot: string): Promise<boolean> {
  const entries = await readdir(cgroupRoot, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isDirectory()) continue;
    const limit = path.join(cgroupRoot, entry.name, 'memory.swap.max');
    if (await exists(limit)) {
      return true;
    }
  }
  return false;
}
