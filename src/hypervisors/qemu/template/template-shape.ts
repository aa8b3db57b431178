import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import type { VmSize } from '../options.ts';

/** Size of the template, and the smallest of a host that is restored from it; anything more is added to the restored VM. */
export const templateShape: HostShape = { vcpus: 1, memoryMib: 768, diskGib: 4 };

/**
 * What the template's VM is started with. Its memory is loaded on the node. Memory that is added just before the freeze has
 * hardly been used then, so it costs the template nothing and a restored host no time.
 */
export const templateStart: VmSize = { vcpus: templateShape.vcpus, memoryMib: 512 };
