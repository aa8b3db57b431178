import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import type { VmBounds } from '../options.ts';
import { addedMemoryMib } from './arguments.ts';

/** What a host of this shape can grow to, or its shape if that is larger. */
export const largest = (shape: HostShape, room: HostShape): HostShape => ({
  vcpus: Math.max(shape.vcpus, room.vcpus),
  memoryMib: Math.max(shape.memoryMib, room.memoryMib),
  diskGib: Math.max(shape.diskGib, room.diskGib),
});

/** The memory that a VM is started with and what can be added to it, in bytes. */
export const memoryBytes = ({
  start,
  room,
}: VmBounds): { readonly main: number; readonly added: number } => ({
  main: start.memoryMib * 1024 ** 2,
  added: addedMemoryMib(start, room) * 1024 ** 2,
});

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
