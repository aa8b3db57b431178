import { refused } from './errors.ts';
import type { AdmissionRules } from './model/node-memory.ts';
import type { Records } from './ports/store.ts';

/** Disk space of the node with the least available. */
export interface DiskRoom {
  /** Free, in MiB. */
  readonly availableMib: number;
  /** Disks of all hosts, parked ones included, and the most that may be promised, in GiB. */
  readonly promisedGib: number;
  readonly limitGib: number;
}

/** Undefined if hosts take no space of the node, or no worker has reported it recently. */
export async function diskRoom(
  records: Pick<Records, 'nodeDisk' | 'usage'>,
  { reserveMib, overcommit }: AdmissionRules,
): Promise<DiskRoom | undefined> {
  const disk = await records.nodeDisk();
  if (disk === undefined) return undefined;
  const { availableMib, capacityMib, poolGib } = disk;
  const promisedGib = ((await records.usage(['total'])).get('total')?.diskGib ?? 0) + poolGib;
  const limitGib = Math.floor((Math.max(0, capacityMib - reserveMib) * overcommit) / 1024);
  return { availableMib, promisedGib, limitGib };
}

/** The reason why the node lacks the disk space, or undefined if it fits. */
async function diskShortage(
  records: Pick<Records, 'nodeDisk' | 'usage'>,
  rules: AdmissionRules,
  addedGib: number,
): Promise<string | undefined> {
  const room = addedGib > 0 ? await diskRoom(records, rules) : undefined;
  if (room === undefined) return undefined;
  const { availableMib, promisedGib, limitGib } = room;
  if (availableMib < rules.reserveMib) {
    return `${availableMib} MiB are free, and ${rules.reserveMib} MiB are reserved (BERTH_DISK_RESERVE_MIB). Try again later, or ask the operator for more disk space.`;
  }
  if (promisedGib <= limitGib) return undefined;
  return `${promisedGib - addedGib} GiB are promised to hosts, this needs ${addedGib} GiB more, and the limit is ${limitGib} GiB (BERTH_DISK_OVERCOMMIT ${rules.overcommit} times the space beyond the reserve). Delete instances, or ask the operator for more disk space.`;
}

/**
 * Refuses what doesn't fit on the node's disk, after it was recorded in the same transaction.
 * @param addedGib what it adds to the space that is promised.
 * @throws RefusedError (503), because it may fit later.
 */
export async function requireDisk(records: Records, rules: AdmissionRules, addedGib: number): Promise<void> {
  const reason = await diskShortage(records, rules, addedGib);
  if (reason !== undefined) throw refused.unavailable(`The node is out of disk space: ${reason}`);
}
