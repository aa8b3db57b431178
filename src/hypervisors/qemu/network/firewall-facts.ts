import type { PortBlock } from '../../../core/hypervisor/host-spec.ts';

/** What nft(8) prints as JSON (libnftables-json(5)), a line an object, without what changes by itself. */

interface Listing {
  readonly nftables: readonly Readonly<Record<string, unknown>>[];
}

const kinds = ['chain', 'map', 'set', 'counter', 'rule'];
/** Numbers that the kernel gives, and counts. */
const transient = new Set(['handle', 'index', 'packets', 'bytes']);

/** The lines of `nft -j list`, in their order. */
export function firewallLines(json: string): readonly string[] {
  const { nftables } = JSON.parse(json) as Listing;
  return nftables.flatMap((entry) =>
    kinds.filter((kind) => kind in entry).map((kind) => `${kind} ${JSON.stringify(entry[kind], lasting)}`),
  );
}

function lasting(key: string, value: unknown): unknown {
  return transient.has(key) ? undefined : value;
}

/** The lines of this installation's own table; of the map of published ports only what leads to this host. */
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

/** The names of the chains in a listing. */
export function chainsIn(json: string): readonly string[] {
  const { nftables } = JSON.parse(json) as Listing;
  return nftables.flatMap(({ chain }) => (chain === undefined ? [] : [(chain as { name: string }).name]));
}

/** The blocks of ports that a listing of the map of published ports leads to one host. */
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
