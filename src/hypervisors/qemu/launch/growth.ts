import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { addedMemoryDevice, addedMemoryMib, dataNode } from './arguments.ts';
import type { Qmp } from './qmp.ts';
import type { VmSize } from '../options.ts';

/** Memory in MiB and disk in GiB of a VM, as QEMU reports them. */
export interface MeasuredSize {
  readonly memoryMib: number;
  readonly diskGib: number;
}

/** What a VM has now. @throws HypervisorError if its monitor does not answer. */
export async function measureSize(qmp: Qmp): Promise<MeasuredSize> {
  const memory = (await qmp.execute('query-memory-size-summary')) as Record<
    'base-memory' | 'plugged-memory',
    number
  >;
  const nodes = (await qmp.execute('query-named-block-nodes', { flat: true })) as readonly {
    'node-name': string;
    image: { 'virtual-size': number };
  }[];
  const disk = nodes.find((node) => node['node-name'] === dataNode)?.image['virtual-size'] ?? 0;
  return {
    memoryMib: (memory['base-memory'] + memory['plugged-memory']) / 1024 ** 2,
    diskGib: disk / 1024 ** 3,
  };
}

/** Bytes that the guest is to add to its memory; undefined if the VM has no device for that. */
export async function requestedMemory(qmp: Qmp): Promise<number | undefined> {
  const devices = (await qmp.execute('query-memory-devices')) as readonly {
    data: { id?: string; 'requested-size'?: number };
  }[];
  return devices.find(({ data }) => data.id === addedMemoryDevice)?.data['requested-size'];
}

/**
 * Adds memory and disk until the VM has those of the shape, and tells the guest. Does what is missing if it is repeated;
 * removes nothing.
 * @param start what the VM was started with.
 */
export async function growVm(qmp: Qmp, start: VmSize, shape: HostShape): Promise<void> {
  const bytes = addedMemoryMib(start, shape) * 1024 ** 2;
  if (((await requestedMemory(qmp)) ?? 0) < bytes) {
    await qmp.execute('qom-set', {
      path: `/machine/peripheral/${addedMemoryDevice}`,
      property: 'requested-size',
      value: bytes,
    });
  }
  // Also if the disk has the size already: a restored guest does not know it.
  await qmp.execute('block_resize', { 'node-name': dataNode, size: shape.diskGib * 1024 ** 3 });
}
