import { readFile } from 'node:fs/promises';
import { enginePort } from '../../../core/hypervisor/network.ts';
import type { HostTraffic } from '../../../core/hypervisor/power.ts';
import type { HostLayout } from '../layout.ts';

/** States of a connection that is over, in /proc/net/tcp (linux/tcp_states.h): TIME_WAIT and CLOSE. */
const over = new Set(['06', '07']);

/**
 * What goes on between this machine and hosts, as the kernel has counted it: gateways run on this machine, so their
 * connections are in its table (proc(5), /proc/net/tcp). It costs the guests nothing.
 */
export async function readTraffic(places: readonly HostLayout[]): Promise<ReadonlyMap<string, HostTraffic>> {
  const table = await readFile('/proc/net/tcp', 'utf8');
  const open = new Map<string, number>();
  for (const line of table.split('\n').slice(1)) {
    const [, , remote, state = ''] = line.trim().split(/\s+/);
    if (remote !== undefined && !over.has(state)) open.set(remote, (open.get(remote) ?? 0) + 1);
  }
  const traffic = await Promise.all(
    places.map(async (place): Promise<[string, HostTraffic]> => [
      place.id,
      { connections: open.get(inTable(place.hostAddress)) ?? 0, packets: await packetsTo(place) },
    ]),
  );
  return new Map(traffic);
}

/** ADDRESS:PORT as the table has it: the address with its bytes turned round, in hexadecimal. */
function inTable(address: string): string {
  const hex = (value: number, digits: number) => value.toString(16).toUpperCase().padStart(digits, '0');
  const octets = address.split('.').reverse();
  return `${octets.map((octet) => hex(Number(octet), 2)).join('')}:${hex(enginePort, 4)}`;
}

/** What this machine has sent over the host's link; 0 where the link is gone. */
async function packetsTo(place: HostLayout): Promise<number> {
  const text = await readFile(`/sys/class/net/${place.veth}/statistics/tx_packets`, 'utf8').catch(() => '0');
  return Number(text);
}
