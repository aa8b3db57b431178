/**
 * The unit in which source addresses are limited: an IPv4 address, or the /64 network of an IPv6 address, since
 * a single client has at least that many (RFC 6177).
 */
export function sourceOf(address: string): string {
  const mapped = /^::ffff:([\d.]+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  if (!address.includes(':')) return address;
  const [before = '', after] = address.split('::');
  const left = before.split(':').filter((group) => group !== '');
  const right = (after ?? '').split(':').filter((group) => group !== '');
  const zeros = Array.from({ length: Math.max(8 - left.length - right.length, 0) }, () => '0');
  return `${[...left, ...zeros, ...right].slice(0, 4).join(':')}::/64`;
}
