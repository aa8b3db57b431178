/** An octet without leading zeros, which some programs read as octal, and others as a part of a host name. */
const octet = '(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])';

/** An IPv4 address in dotted decimal: the pattern of a JSON schema (draft 04). */
export const addressPattern = `^(${octet}\\.){3}${octet}$`;

/** An IPv4 network in CIDR notation: the pattern of a JSON schema (draft 04). */
export const networkPattern = `^(${octet}\\.){3}${octet}/([0-9]|[12][0-9]|3[0-2])$`;

/**
 * Addresses at which clouds answer a VM with its metadata and credentials, or as its host. The node's cloud takes a guest for
 * the node, because the node masquerades it.
 */
const cloudMetadata: readonly string[] = [
  // Most clouds; the network contains it as well.
  '169.254.169.254/32',
  // Azure's WireServer, a public address.
  '168.63.129.16/32',
  // Alibaba.
  '100.100.100.200/32',
  // Oracle.
  '192.0.0.192/32',
];

/** Networks that no list opens, not even an operator's: this host, loopback, link-local, multicast, and cloud metadata. */
export const neverOpenNetworks: readonly string[] = [
  '0.0.0.0/8',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '224.0.0.0/3',
  ...cloudMetadata,
];

/**
 * Networks that a guest with egress to the internet must not reach: every special-purpose network of RFC 6890, multicast (RFC
 * 5771), and cloud metadata.
 */
export const specialNetworks: readonly string[] = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  // Multicast, reserved (240.0.0.0/4) and broadcast.
  '224.0.0.0/3',
  ...cloudMetadata,
];
