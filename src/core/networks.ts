/** An IPv4 network in CIDR notation, as a JSON schema's pattern (draft 04). */
export const networkPattern =
  '^((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])/([0-9]|[12][0-9]|3[0-2])$';

/** What a guest on the internet must not reach: private, link-local and special networks (RFC 6890). */
export const specialNetworks: readonly string[] = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '224.0.0.0/3',
];

/** First and last address of an IPv4 network in CIDR notation, as numbers. */
export function networkRange(network: string): { readonly first: number; readonly last: number } {
  const [address = '', length = '32'] = network.split('/');
  const number = address.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
  const size = 2 ** (32 - Number(length));
  const first = number - (number % size);
  return { first, last: first + size - 1 };
}

/** Whether every address of `inner` is one of `outer`. */
export function contains(outer: string, inner: string): boolean {
  const [whole, part] = [networkRange(outer), networkRange(inner)];
  return whole.first <= part.first && part.last <= whole.last;
}

/** Whether the two have an address in common. */
export function overlap(one: string, other: string): boolean {
  const [a, b] = [networkRange(one), networkRange(other)];
  return a.first <= b.last && b.first <= a.last;
}
