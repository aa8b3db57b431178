import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { isIPv4 } from 'node:net';

/** The node's first IPv4 address that is not loopback; 127.0.0.1 if it has none. */
export function nodeAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';
}

/** The setting `none`: guests resolve no names on purpose. */
export const noNameServers: readonly string[] = [];

/**
 * Why guests can't resolve names although the operator has not chosen so, with the remedy; undefined if they can.
 * @param servers the setting's value.
 */
export function nameServerProblem(
  servers: readonly string[],
  nodeAddresses: readonly string[] = ownAddresses(),
): string | undefined {
  if (servers === noNameServers) return undefined;
  const remedy =
    'set BERTH_DNS_SERVERS to the IPv4 address of a name server on another computer, or to `none` to confirm';
  const [first] = servers;
  if (first === undefined) {
    return `guests can't resolve names: all name servers of this node are on the node itself or have only IPv6 addresses; ${remedy}`;
  }
  if (!nodeAddresses.includes(first)) return undefined;
  return `guests can't resolve names: BERTH_DNS_SERVERS names ${first}, an address of this node, which accepts nothing from guests; ${remedy}`;
}

/**
 * Lists of the node's name servers. A local stub resolver puts only itself into the first; the others have the servers that it
 * asks: of systemd-resolved and of NetworkManager.
 */
const resolverFiles = [
  '/etc/resolv.conf',
  '/run/systemd/resolve/resolv.conf',
  '/run/NetworkManager/no-stub-resolv.conf',
];

/**
 * The node's name servers that guests can reach: IPv4, not loopback, and not an address of the node, which accepts nothing from
 * guests. Of the first file that names any; empty if none does.
 */
export function nodeNameServers(
  files: readonly string[] = resolverFiles,
  nodeAddresses: readonly string[] = ownAddresses(),
): readonly string[] {
  for (const file of files) {
    const servers = nameServersIn(file).filter(
      (address) => isIPv4(address) && !address.startsWith('127.') && !nodeAddresses.includes(address),
    );
    if (servers.length > 0) return servers;
  }
  return [];
}

function nameServersIn(file: string): readonly string[] {
  try {
    return [...readFileSync(file, 'utf8').matchAll(/^nameserver\s+(\S+)/gm)].map(
      ([, address = '']) => address,
    );
  } catch {
    return [];
  }
}

const ownAddresses = () =>
  Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
