/** First and last address of an IPv4 network in CIDR notation, as numbers. An address without a length is a /32. */
export function networkRange(network: string): { readonly first: number; readonly last: number } {
  const [address = '', length = '32'] = network.split('/');
  const number = address.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
  const size = 2 ** (32 - Number(length));
  const first = number - (number % size);
  return { first, last: first + size - 1 };
}

/** Number of address pairs (/31) in a network, without the first one. */
export function addressPairs(network: string): number {
  return 2 ** (31 - Number(network.split('/')[1])) - 1;
}

/** An IPv4 address in dotted decimal. */
export function formatAddress(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.');
}

/** The network in CIDR notation with its first address: 10.1.2.3/16 is 10.1.0.0/16. */
export function canonicalNetwork(network: string): string {
  return `${formatAddress(networkRange(network).first)}/${Number(network.split('/')[1] ?? 32)}`;
}

/** Whether every address of the network `inner` is one of `outer`. */
export function contains(outer: string, inner: string): boolean {
  const [whole, part] = [networkRange(outer), networkRange(inner)];
  return whole.first <= part.first && part.last <= whole.last;
}

/** Whether the two networks have an address in common. */
export function overlap(one: string, other: string): boolean {
  const [a, b] = [networkRange(one), networkRange(other)];
  return a.first <= b.last && b.first <= a.last;
}
