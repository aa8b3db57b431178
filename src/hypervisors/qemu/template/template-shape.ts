import type { HostShape } from '../../../core/hypervisor/host-spec.ts';

/** Size of the template, and the smallest of a host that is restored from it; anything more is added to the restored VM. */
export const templateShape: HostShape = { vcpus: 1, memoryMib: 768, diskGib: 4 };
