/** Disk space of a node as its worker last reported it. */
export interface NodeDisk {
  /** Free, in MiB. */
  readonly availableMib: number;
  /** Free, or taken by hosts, in MiB. */
  readonly capacityMib: number;
  /** Disks of the hosts in the pool, in GiB. */
  readonly poolGib: number;
}
