import type { PortBlock } from '../../../core/hypervisor/host-spec.ts';

/** The output of `nft --json` (libnftables-json(5)): one line per object, without values that change by themselves. */

interface Listing {
  readonly nftables: readonly Readonly<Record<string, unknown>>[];
}

const kinds = ['chain', 'map', 'set', 'counter', 'rule'];
/** Kernel-assigned numbers and counters. */
const transient = new Set(['handle', 'index', 'packets', 'bytes']);

/** The objects of `nft --json list` as lines, in order. */
export function firewallLines(json: string): readonly string[] {
  const { nftables } = JSON.parse(json) as Listing;
  return nftables.flatMap((entry) =>
    kinds
      .filter((kind) => kind in entry)
      .map((kind) => `${kind} ${JSON.stringify(entry[kind], withoutTransient)}`),
  );
}

function withoutTransient(key: string, value: unknown): unknown {
  return transient.has(key) ? undefined : value;
}

/** The lines of this installation's table; of the map of published ports only the elements of this host. */
export function nodeFirewallLines(json: string, hostAddress: string): readonly string[] {
  const { nftables } = JSON.parse(json) as Listing;
  const rest = nftables.filter((entry) => !('map' in entry));
  return [
    ...firewallLines(JSON.stringify({ nftables: rest })),
    ...elementsFor(nftables, hostAddress).map(
      (ports) => `published ${JSON.stringify(ports)} to ${hostAddress}`,
    ),
  ];
}

/** Names of the chains in a listing. */
export function chainsIn(json: string): readonly string[] {
  const { nftables } = JSON.parse(json) as Listing;
  return nftables.flatMap(({ chain }) => (chain === undefined ? [] : [(chain as { name: string }).name]));
}

/** The port blocks that lead to one host, from a listing of the map of published ports. */
export function publishedTo(json: string, hostAddress: string): readonly PortBlock[] {
  const { nftables } = JSON.parse(json) as Listing;
  return elementsFor(nftables, hostAddress).map((ports) => {
    if (typeof ports === 'number') return { first: ports, count: 1 };
    const [first, last] = ports.range;
    return { first, count: last - first + 1 };
  });
}

type Ports = number | { readonly range: readonly [number, number] };

function elementsFor(nftables: Listing['nftables'], hostAddress: string): readonly Ports[] {
  return nftables.flatMap((entry) => {
    const { elem = [] } = (entry['map'] ?? {}) as { elem?: readonly (readonly [Ports, unknown])[] };
    return elem.filter(([, address]) => address === hostAddress).map(([ports]) => ports);
  });
}
