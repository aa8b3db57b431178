import { refused } from './errors.ts';
import type { AdmissionRules } from './model/node-memory.ts';
import type { Records } from './ports/store.ts';

/** Disk of the hosts in GiB that may be promised in all, on a node with this capacity. */
export function promisedLimitGib({ reserveMib, overcommit }: AdmissionRules, capacityMib: number): number {
  return Math.floor((Math.max(0, capacityMib - reserveMib) * overcommit) / 1024);
}

/** The reason why the node lacks the disk space, or undefined if it fits. Promised space counts, parked hosts' included. */
export async function diskShortage(
  records: Pick<Records, 'nodeDisk' | 'usage'>,
  rules: AdmissionRules,
  promisedGib: number,
): Promise<string | undefined> {
  const disk = promisedGib > 0 ? await records.nodeDisk() : undefined;
  if (disk === undefined) return undefined;
  if (disk.availableMib < rules.reserveMib) {
    return `${disk.availableMib} MiB are free, and ${rules.reserveMib} MiB are reserved (BERTH_DISK_RESERVE_MIB). Try again later, or ask the operator for more disk space.`;
  }
  const promised = ((await records.usage(['total'])).get('total')?.diskGib ?? 0) + disk.poolGib;
  const limit = promisedLimitGib(rules, disk.capacityMib);
  if (promised <= limit) return undefined;
  return `${promised - promisedGib} GiB are promised to hosts, this needs ${promisedGib} GiB more, and the limit is ${limit} GiB (BERTH_DISK_OVERCOMMIT ${rules.overcommit} times the space beyond the reserve). Delete instances, or ask the operator for more disk space.`;
}

/**
 * Refuses what doesn't fit on the node's disk, after it was recorded in the same transaction.
 * @throws RefusedError (503), because it may fit later.
 */
export async function requireDisk(
  records: Records,
  rules: AdmissionRules,
  promisedGib: number,
): Promise<void> {
  const reason = await diskShortage(records, rules, promisedGib);
  if (reason !== undefined) throw refused.unavailable(`The node is out of disk space: ${reason}`);
}
