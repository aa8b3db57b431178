import type { HostShape } from '../../../core/hypervisor/host-spec.ts';

/**
 * Upper bound of any single file of a VM, in bytes: a full disk with its tables (qcow2 needs 10 bytes per 64 KiB
 * cluster), or the memory of a template.
 */
export function largestFile({ diskGib, memoryMib }: HostShape): number {
  return Math.max(Math.ceil(diskGib * 1024 ** 3 * 1.01) + 64 * 1024 ** 2, memoryMib * 1024 ** 2);
}

/**
 * Upper bound of a VM's saved memory and device state, in bytes: each page has a header of a few bytes, and device
 * state takes less than 1 MiB.
 */
export function largestSaved({ memoryMib }: HostShape): number {
  return Math.ceil(memoryMib * 1.01 + 32) * 1024 ** 2;
}
