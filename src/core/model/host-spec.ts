import type { HostSpec } from '../hypervisor/host-spec.ts';
import type { Host, PoolHost } from './host.ts';

/** What the hypervisor needs to know about a host. */
export function toHostSpec(host: Host | PoolHost): HostSpec {
  return {
    hostId: host.id,
    ...('instanceId' in host && { owner: host.instanceId }),
    slot: host.slot,
    planName: host.planName,
    shape: host.shape,
    publishedPorts: host.publishedPorts,
    egress: host.egress,
    registries: host.registries,
    ...(host.imageVersion !== undefined && { imageVersion: host.imageVersion }),
  };
}
