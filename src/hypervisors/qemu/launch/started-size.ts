import { isDeepStrictEqual } from 'node:util';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import type { HostRecord } from '../host-record.ts';
import type { GuestImage } from '../image/guest-image.ts';
import type { QemuOptions, VmSize } from '../options.ts';
import { templateShape, templateStart } from '../template/template-shape.ts';

/** The part of a host's record that says what its VM was started with. */
type StartedSize = Pick<HostRecord, 'bounds' | 'growing'>;

const sizeOf = ({ vcpus, memoryMib }: VmSize): VmSize => ({ vcpus, memoryMib });

/** Of a VM that was restored from the template and then given this shape. */
export const restoredSize = (shape: HostShape, room: VmSize): StartedSize => ({
  bounds: { start: templateStart, room: sizeOf(room) },
  growing: isDeepStrictEqual(shape, templateShape) ? undefined : { isAdded: true },
});

/**
 * Of a VM that boots. Emulated guests boot with one CPU, and their agent turns on the others: the kernel patches its code
 * while it boots, and QEMU's emulation lets a second CPU run into the half of a patch now and then, which is a panic (ADR 32).
 */
export function bootedSize(
  shape: HostShape,
  { accelerator, room }: Pick<QemuOptions, 'accelerator' | 'room'>,
  { turnsOnCpus }: Pick<GuestImage, 'turnsOnCpus'>,
): StartedSize {
  const isAlone = accelerator === 'tcg' && turnsOnCpus && shape.vcpus > 1 && shape.vcpus <= room.vcpus;
  return {
    bounds: { start: { ...sizeOf(shape), ...(isAlone && { vcpus: 1 }) }, room: sizeOf(room) },
    growing: isAlone ? { isAdded: true } : undefined,
  };
}
