import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { isIPv4 } from 'node:net';

/** The node's first IPv4 address that is not loopback; 127.0.0.1 if it has none. */
export function nodeAddress(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '127.0.0.1';
}

/** The node's name servers; a stub resolver on loopback can't be reached from a guest. */
export function nodeNameServers(): readonly string[] {
  try {
    return [...readFileSync('/etc/resolv.conf', 'utf8').matchAll(/^nameserver\s+(\S+)/gm)]
      .map(([, address = '']) => address)
      .filter((address) => isIPv4(address) && !address.startsWith('127.'));
  } catch {
    return [];
  }
}
