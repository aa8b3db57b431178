import { readFile, writeFile } from 'node:fs/promises';
import pLimit from 'p-limit';
import type { PortBlock } from '../../../core/hypervisor/host-spec.ts';
import { errorMessage } from '../../../lib/error-message.ts';
import { runTool } from '../../run-tool.ts';
import { difference } from '../integrity/compare.ts';
import type { HostLayout } from '../layout.ts';
import { createEngineRoutes } from './engine-routes.ts';
import { chainsIn, firewallLines, publishedIn, publishedLine, ruleHandles } from './firewall-facts.ts';
import {
  nodeChains,
  type NodeRuleOptions,
  nodeRules,
  nodeTable,
  publishPorts,
  removePorts,
  unpublishPorts,
} from './node-rules.ts';

type Address = Pick<HostLayout, 'hostAddress'>;

/** This installation's rules among the node's own: its nftables table, its routing rules, and forwarding. */
export interface NodeFirewall {
  /**
   * Applies the rules without disturbing running hosts.
   * @returns foreign chains that were in the table and have been removed.
   */
  open(): Promise<readonly string[]>;
  /** Puts back what is missing or altered, published ports included. Does nothing before {@link open}. */
  repair(): Promise<void>;
  /** What has been put back since the last call, as lines for operators. */
  takeRepairs(): readonly string[];
  /** @param former the ports that lead to the host now; undefined if unknown, then the firewall is asked. */
  publish(host: Address, ports: PortBlock, former: PortBlock | undefined): Promise<void>;
  /** @param ports undefined: whatever leads to the host. */
  unpublish(host: Address, ports: PortBlock | undefined): Promise<void>;
  /** The ports that lead to a host, as lines. */
  published(host: Address): Promise<readonly string[]>;
}

const forwarding = '/proc/sys/net/ipv4/ip_forward';
/** Of repairs that nobody has asked for. */
const mostRepairs = 100;

/** What was applied, as nft lists it. */
interface Reference {
  readonly lines: readonly string[];
  readonly handles: readonly string[];
}

export function createNodeFirewall(options: NodeRuleOptions): NodeFirewall {
  const { site } = options;
  const routes = createEngineRoutes(options.hostNetwork, options.gatewayUid);
  /** Changes and repairs, one after the other: a repair must not undo or mistake a change that is half done. */
  const exclusively = pLimit(1);
  let reference: Reference | undefined;
  /** The ports that should lead to each host's address, as this process has found and changed them. */
  const published = new Map<string, readonly PortBlock[]>();
  const repairs: string[] = [];

  const list = (...what: string[]) => runTool('nft', ['--json', 'list', ...what]);
  const table = ['inet', nodeTable(site)];
  const run = (rules: string) =>
    rules === '' ? Promise.resolve('') : runTool('nft', ['--file', '-'], { input: rules });

  async function apply(foreign: readonly string[], elements = ''): Promise<string> {
    const listing = await runTool(
      'sh',
      ['-c', 'nft --file - && exec nft --json list table "$@"', 'sh', ...table],
      {
        input: `${nodeRules(options, foreign)}${elements}`,
      },
    );
    reference = referenceOf(listing);
    return listing;
  }

  const expected = () =>
    [...published].flatMap(([hostAddress, blocks]) => blocks.map((ports) => ({ ports, hostAddress })));

  /** What is missing or new in the table, as text; undefined if nothing. */
  function differenceFrom(listing: string, applied: Reference): string | undefined {
    const found = referenceOf(listing);
    const elements = (blocks: ReturnType<typeof expected>) => blocks.map(publishedLine).toSorted();
    return (
      difference(
        [...applied.lines, ...elements(expected())],
        [...found.lines, ...elements([...publishedIn(listing)])],
      ) ?? difference(applied.handles, found.handles)
    );
  }

  async function repairNow(): Promise<void> {
    if (reference === undefined) return;
    if ((await readFile(forwarding, 'utf8')).trim() !== '1') {
      await writeFile(forwarding, '1\n');
      record('net.ipv4.ip_forward was not 1');
    }
    for (const missing of await routes.repair()) record(missing);
    const listing = await list('table', ...table).catch((error: unknown) => {
      record(errorMessage(error));
      return undefined;
    });
    const altered = listing === undefined ? undefined : differenceFrom(listing, reference);
    if (listing !== undefined && altered === undefined) return;
    if (altered !== undefined) record(altered);
    const foreign = chainsIn(listing ?? noObjects).filter((chain) => !nodeChains.includes(chain));
    const elements = expected().map(({ ports, hostAddress }) => publishPorts(site, { hostAddress }, ports));
    await apply(foreign, `flush map ${table.join(' ')} ports\n${elements.join('')}`);
  }

  function record(repair: string): void {
    if (repairs.length < mostRepairs) repairs.push(repair);
  }

  /** Runs rules that change the table. If they fail, something may be missing that they need: repairs, and tries again. */
  async function change(rules: () => Promise<string> | string): Promise<void> {
    try {
      await run(await rules());
    } catch {
      await repairNow();
      await run(await rules());
    }
  }

  /** Rules that remove whatever ports lead to the host now. */
  async function removalOfPublished(host: Address): Promise<string> {
    const blocks = publishedIn(await list('map', ...table, 'ports'));
    return blocks
      .filter(({ hostAddress }) => hostAddress === host.hostAddress)
      .map(({ ports }) => removePorts(site, host, ports))
      .join('');
  }

  return {
    open: () =>
      exclusively(async () => {
        // The node routes guests' packets. This is the only setting of the node that Berth changes.
        await writeFile(forwarding, '1\n');
        await routes.repair();
        // Add the table first, so that listing it does not fail.
        await run(`add table ${table.join(' ')}\n`);
        const before = await list('table', ...table);
        const foreign = chainsIn(before).filter((chain) => !nodeChains.includes(chain));
        published.clear();
        for (const { ports, hostAddress } of publishedIn(await apply(foreign))) {
          published.set(hostAddress, [...(published.get(hostAddress) ?? []), ports]);
        }
        return foreign;
      }),

    repair: () => exclusively(repairNow),

    takeRepairs: () => repairs.splice(0),

    publish: (host, ports, former) =>
      exclusively(async () => {
        const isKnown = former?.first === ports.first && former.count === ports.count;
        const removal = () => (isKnown ? '' : removalOfPublished(host));
        await change(async () => `${await removal()}${publishPorts(site, host, ports)}`);
        published.set(host.hostAddress, ports.count === 0 ? [] : [ports]);
      }),

    unpublish: (host, ports) =>
      exclusively(async () => {
        await change(() =>
          ports === undefined ? removalOfPublished(host) : unpublishPorts(site, host, ports),
        );
        published.delete(host.hostAddress);
      }),

    published: (host) =>
      exclusively(async () =>
        publishedIn(await list('map', ...table, 'ports'))
          .filter(({ hostAddress }) => hostAddress === host.hostAddress)
          .map(publishedLine),
      ),
  };
}

const noObjects = '{"nftables": []}';

const referenceOf = (listing: string): Reference => ({
  lines: firewallLines(listing),
  handles: ruleHandles(listing),
});
