import type { PortBlock } from '../../../core/hypervisor/host-spec.ts';

/** The output of `nft --json` (libnftables-json(5)): one line per object, without values that change by themselves. */

interface Listing {
  readonly nftables: readonly Readonly<Record<string, unknown>>[];
}

const kinds = ['chain', 'map', 'set', 'ct timeout', 'counter', 'rule'];
/** Kernel-assigned numbers, counters, and elements: those of sets come and go, those of the map are compared as ports. */
const transient = new Set(['handle', 'index', 'packets', 'bytes', 'elem']);

/** A part of nft's own notation for a rule, in which `elem` is the key of a dynamic set. */
const isInRule = (value: unknown) => typeof value === 'object' && !Array.isArray(value);

/** The objects of `nft --json list` as lines, in order. */
export function firewallLines(json: string): readonly string[] {
  return objectsIn(json).map(([kind, object]) => `${kind} ${JSON.stringify(object, withoutTransient)}`);
}

function withoutTransient(key: string, value: unknown): unknown {
  return transient.has(key) && !(key === 'elem' && isInRule(value)) ? undefined : value;
}

/**
 * The handles of chains and rules, in order: a rule that was removed and put back has another one. Kept apart from the rules, so
 * that drift can be described by rules.
 */
export function ruleHandles(json: string): readonly string[] {
  return objectsIn(json)
    .filter(([kind]) => kind === 'chain' || kind === 'rule')
    .map(([kind, object]) => {
      const { family = '', table = '', name, chain = name, handle } = object as Record<string, string>;
      return `${kind} ${handle ?? ''} in ${family} ${table} ${chain ?? ''}`;
    });
}

function objectsIn(json: string): [kind: string, object: unknown][] {
  const { nftables } = JSON.parse(json) as Listing;
  return nftables.flatMap((entry) =>
    kinds.filter((kind) => kind in entry).map((kind): [string, unknown] => [kind, entry[kind]]),
  );
}

/** Names of the chains in a listing. */
export function chainsIn(json: string): readonly string[] {
  const { nftables } = JSON.parse(json) as Listing;
  return nftables.flatMap(({ chain }) => (chain === undefined ? [] : [(chain as { name: string }).name]));
}

/** The chains of a listing that packets pass by themselves (base chains), without those of one table, as lines. */
export function baseChains(json: string, except: { family: string; table: string }): readonly string[] {
  const { nftables } = JSON.parse(json) as Listing;
  return nftables.flatMap((entry) => {
    const { family, table, name, type, hook } = (entry['chain'] ?? {}) as Record<string, string>;
    if (hook === undefined || (family === except.family && table === except.table)) return [];
    return [`chain ${name ?? ''} of table ${family ?? ''} ${table ?? ''}: ${type ?? ''}, hook ${hook}`];
  });
}

/** A port block and the host's address that it leads to. */
export interface PublishedBlock {
  readonly ports: PortBlock;
  readonly hostAddress: string;
}

/** The published port blocks of all hosts, in the order of their ports, from a listing of the map or its table. */
export function publishedIn(json: string): readonly PublishedBlock[] {
  const { nftables } = JSON.parse(json) as Listing;
  return nftables.flatMap((entry) => {
    const { elem = [] } = (entry['map'] ?? {}) as { elem?: readonly (readonly [Ports, string])[] };
    return elem.map(([ports, hostAddress]) => ({ ports: toBlock(ports), hostAddress }));
  });
}

type Ports = number | { readonly range: readonly [number, number] };

function toBlock(ports: Ports): PortBlock {
  if (typeof ports === 'number') return { first: ports, count: 1 };
  const [first, last] = ports.range;
  return { first, count: last - first + 1 };
}

/** The block in nft's own notation. */
export function publishedLine({ ports: { first, count }, hostAddress }: PublishedBlock): string {
  const ports: Ports = count === 1 ? first : { range: [first, first + count - 1] };
  return `published ${JSON.stringify(ports)} to ${hostAddress}`;
}
