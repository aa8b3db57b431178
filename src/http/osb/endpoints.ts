import type { PortBlock } from '../../core/hypervisor/host-spec.ts';
import type { JsonObject } from '../../core/model/json.ts';
import { formatPortRange } from '../../lib/port-range.ts';
import type { PublicAddress } from '../../core/model/public-address.ts';

/** The endpoints of a binding (OSB 2.17, "Endpoint Object"). */
export function endpoints(address: PublicAddress, publishedPorts: PortBlock): readonly JsonObject[] {
  const gateway = { host: address.host, ports: [String(address.gatewayPort)], protocol: 'tcp' };
  if (publishedPorts.count === 0) return [gateway];
  return [gateway, { host: address.host, ports: [formatPortRange(publishedPorts)], protocol: 'all' }];
}
