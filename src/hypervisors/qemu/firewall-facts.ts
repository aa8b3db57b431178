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
export function machineFirewallLines(json: string, hostAddress: string): readonly string[] {
  const { nftables } = JSON.parse(json) as Listing;
  const rest = nftables.filter((entry) => !('map' in entry));
  const published = nftables.flatMap((entry) => {
    const { elem = [] } = (entry['map'] ?? {}) as { elem?: readonly (readonly [unknown, unknown])[] };
    return elem.filter(([, address]) => address === hostAddress);
  });
  return [
    ...firewallLines(JSON.stringify({ nftables: rest })),
    ...published.map(([ports]) => `published ${JSON.stringify(ports)} to ${hostAddress}`),
  ];
}
