import { readFile } from 'node:fs/promises';
import { enginePort } from '../../../core/hypervisor/network.ts';
import type { HostTraffic } from '../../../core/hypervisor/power.ts';
import type { HostLayout } from '../layout.ts';

/** States of closed connections in /proc/net/tcp (linux/tcp_states.h): TIME_WAIT and CLOSE. */
const closedStates = new Set(['06', '07']);

/**
 * Connections and packets between the node and hosts, as counted by the kernel: gateways run on the node, so their
 * connections are in /proc/net/tcp (proc(5)). Costs the guests nothing.
 */
export async function readTraffic(layouts: readonly HostLayout[]): Promise<ReadonlyMap<string, HostTraffic>> {
  const table = await readFile('/proc/net/tcp', 'utf8');
  const open = new Map<string, number>();
  for (const line of table.split('\n').slice(1)) {
    const [, , remote, state = ''] = line.trim().split(/\s+/);
    if (remote !== undefined && !closedStates.has(state)) open.set(remote, (open.get(remote) ?? 0) + 1);
  }
  const traffic = await Promise.all(
    layouts.map(async (layout): Promise<[string, HostTraffic]> => [
      layout.id,
      { connections: open.get(inTable(layout.hostAddress)) ?? 0, packets: await packetsTo(layout) },
    ]),
  );
  return new Map(traffic);
}

/** ADDRESS:PORT as in /proc/net/tcp: hexadecimal, the address in little-endian byte order. */
function inTable(address: string): string {
  const hex = (value: number, digits: number) => value.toString(16).toUpperCase().padStart(digits, '0');
  const octets = address.split('.').reverse();
  return `${octets.map((octet) => hex(Number(octet), 2)).join('')}:${hex(enginePort, 4)}`;
}

/** Packets that the node has sent over the host's link; 0 if the link does not exist. */
async function packetsTo(layout: HostLayout): Promise<number> {
  const text = await readFile(`/sys/class/net/${layout.veth}/statistics/tx_packets`, 'utf8').catch(() => '0');
  return Number(text);
}
