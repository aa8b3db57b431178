import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { canonicalNetwork, networkRange } from '../../../lib/ipv4.ts';

/**
 * An anonymous set of nft(8), without networks that another one contains, because nft refuses overlapping intervals.
 * @throws HypervisorError for text that is not an IPv4 network: nft would take it for a host name and ask DNS.
 */
export function networkSet(networks: readonly string[]): string {
  const ranges = networks.map((network) => ({ network: canonical(network), ...networkRange(network) }));
  const outermost = ranges.filter(
    (range, index) =>
      !ranges.some(
        (other, at) =>
          at !== index &&
          other.first <= range.first &&
          other.last >= range.last &&
          // Of two equal networks the first stays.
          (other.last - other.first > range.last - range.first || at < index),
      ),
  );
  return `{ ${outermost.map(({ network }) => network).join(', ')} }`;
}

/** In decimals without leading zeros. */
function canonical(network: string): string {
  const [, octets = '', length = ''] = /^(\d{1,3}(?:\.\d{1,3}){3})\/(\d{1,2})$/.exec(network) ?? [];
  const isValid = octets !== '' && octets.split('.').every((octet) => Number(octet) <= 255);
  if (!isValid || Number(length) > 32) {
    throw new HypervisorError(`${JSON.stringify(network)} is not an IPv4 network in CIDR notation`);
  }
  return canonicalNetwork(network);
}
