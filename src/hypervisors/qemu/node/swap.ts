import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { exists } from '../../../lib/exists.ts';

/**
 * Whether tenants' memory may be written to the node's swap and so outlast its host. cgroup v2 can forbid it
 * (`memory.swap.max`); cgroup v1 only limits memory and swap together, and a swappiness of 0 makes it rare.
 * @returns a message with the remedy for operators; undefined if there is no problem.
 */
export async function swapProblem(
  swaps = '/proc/swaps',
  cgroupRoot = '/sys/fs/cgroup',
): Promise<string | undefined> {
  // proc(5): a heading, then one line per swap area.
  const active = (await readFile(swaps, 'utf8').catch(() => '')).trim().split('\n').slice(1);
  if (active.length === 0 || (await canForbid(cgroupRoot))) return undefined;
  const names = active.map((line) => line.split(/\s+/)[0] ?? '').join(', ');
  return `this node uses swap (${names}), and its control groups can't keep tenants' memory out of it: turn swap off, encrypt it, or use cgroup v2`;
}

/** The root group has no limit files, so look at any other group. */
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
