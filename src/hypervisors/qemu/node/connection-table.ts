import { readFile } from 'node:fs/promises';
import { mostTableEntries } from '../network/connection-limits.ts';
import type { HostLimits } from '../options.ts';

/** Entries that are left for the node: for connections of Berth itself, of SSH and of other programs. */
const reserve = 32_768;

/**
 * Whether the node's connection tracking table is large enough for all hosts at their limits. If it is full, nobody on the node
 * gets a new connection.
 * @param hosts the number of hosts; the next one is included.
 * @returns a message with the remedy for operators; undefined if there is no problem, or the kernel has no such table yet.
 */
export async function connectionTableProblem(
  limits: HostLimits,
  hosts: number,
  file = '/proc/sys/net/netfilter/nf_conntrack_max',
): Promise<string | undefined> {
  const most = Number(await readFile(file, 'utf8').catch(() => 'Infinity'));
  const needed = reserve + (hosts + 1) * mostTableEntries(limits);
  if (most >= needed) return undefined;
  return `net.netfilter.nf_conntrack_max is ${most}, but ${hosts + 1} hosts at their limits and a reserve of ${reserve} need ${needed} entries: set it to ${needed} or more with sysctl, or lower BERTH_HOST_CONNECTIONS (now ${limits.connections})`;
}
