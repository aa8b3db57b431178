import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { PortBlock } from '../../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { NodeRulesReport } from '../../../core/hypervisor/network.ts';
import type { HostLocks } from '../../host-locks.ts';
import { runTool } from '../../run-tool.ts';
import { difference } from '../integrity/compare.ts';
import type { HostLayout } from '../layout.ts';
import { createEngineRoutes } from './engine-routes.ts';
import {
  baseChains,
  chainsIn,
  firewallLines,
  type PublishedBlock,
  publishedIn,
  publishedLine,
  ruleHandles,
} from './firewall-facts.ts';
import { createNodeRecordFile, type NodeRecord } from './node-record.ts';
import {
  type NodeRuleOptions,
  nodeRules,
  nodeTable,
  publishPorts,
  removePorts,
  unpublishPorts,
} from './node-rules.ts';
import { writeKernelFile } from '../../../lib/write-kernel-file.ts';

type Address = Pick<HostLayout, 'hostAddress'>;

/** This installation's rules among the node's own: its nftables table, its routing rules, and forwarding. */
export interface NodeFirewall {
  /**
   * Applies the rules without disturbing running hosts.
   * @returns foreign chains that were in the table and have been removed.
   */
  open(): Promise<readonly string[]>;
  /** Puts back what is missing or altered, published ports included. */
  repair(): Promise<NodeRulesReport>;
  /** @param former the ports that lead to the host now; undefined if unknown, then the firewall is asked. */
  publish(host: Address, ports: PortBlock, former: PortBlock | undefined): Promise<void>;
  /** @param ports undefined: all blocks that lead to the host. */
  unpublish(host: Address, ports: PortBlock | undefined): Promise<void>;
}

const forwarding = '/proc/sys/net/ipv4/ip_forward';

export function createNodeFirewall(
  options: NodeRuleOptions & { readonly runDirectory: string },
  locks: Pick<HostLocks, 'withLock'>,
): NodeFirewall {
  const { site } = options;
  const table = ['inet', nodeTable(site)];
  const routes = createEngineRoutes(options.hostNetwork, options.gatewayUid);
  const record = createNodeRecordFile(path.join(options.runDirectory, 'node-firewall.json'));
  /** One change or repair after the other, of all workers: a repair must not undo or mistake a change that is half done. */
  const exclusively = <T>(act: () => Promise<T>) => locks.withLock('node-firewall', act);

  const list = (...what: string[]) => runTool('nft', ['--json', 'list', ...what]);
  const run = (rules: string) => runTool('nft', ['--file', '-'], { input: rules });

  /** @returns the table as nft lists it. */
  async function apply(published: readonly PublishedBlock[]): Promise<string> {
    // The node routes guests' packets. This is the only setting of the node that Berth changes.
    await writeKernelFile(forwarding, '1\n');
    await routes.add(await routes.missing());
    const listing = await runTool(
      'sh',
      ['-c', 'nft --file - && exec nft --json list table "$@"', 'sh', ...table],
      { input: nodeRules(options, published) },
    );
    await record.write({
      lines: firewallLines(listing),
      handles: ruleHandles(listing),
      published,
      foreign: await foreignChains(),
    });
    return listing;
  }

  const foreignChains = async () =>
    baseChains(await list('chains'), { family: 'inet', table: nodeTable(site) });

  /** What differs from the record. */
  async function inspect(known: NodeRecord): Promise<NodeRulesReport> {
    const [forwards, missing, listing, chains] = await Promise.all([
      readFile(forwarding, 'utf8'),
      routes.missing(),
      list('table', ...table).catch(unlessMissing),
      foreignChains(),
    ]);
    const rules =
      listing === undefined ? `missing: table ${table.join(' ')}` : differenceOfRules(known, listing);
    return {
      altered: [
        ...(forwards.trim() === '1' ? [] : ['net.ipv4.ip_forward was not 1']),
        ...missing.map((rule) => `missing: routing rule ${rule}`),
        ...(rules === undefined ? [] : [rules]),
      ],
      foreign: chains.filter((chain) => !known.foreign.includes(chain)),
    };
  }

  /** Rules that remove all ports that lead to the host now. */
  async function removalOfPublished(host: Address): Promise<string> {
    const blocks = publishedIn(await list('map', ...table, 'ports'));
    return blocks
      .filter(({ hostAddress }) => hostAddress === host.hostAddress)
      .map(({ ports }) => removePorts(site, host, ports))
      .join('');
  }

  /** First on record, then in force: after a kill in between, a repair completes it. */
  async function change(host: Address, ports: readonly PortBlock[], rules: () => Promise<string> | string) {
    await exclusively(async () => {
      const known = await record.read();
      if (known !== undefined) {
        const others = known.published.filter(({ hostAddress }) => hostAddress !== host.hostAddress);
        const own = ports.map((block) => ({ ports: block, hostAddress: host.hostAddress }));
        await record.write({ ...known, published: [...others, ...own] });
      }
      const text = await rules();
      if (text !== '') await run(text);
    });
  }

  return {
    open: () =>
      exclusively(async () => {
        const before = (await list('table', ...table).catch(unlessMissing)) ?? noObjects;
        const after = await apply((await record.read())?.published ?? publishedIn(before));
        return chainsIn(before).filter((chain) => !chainsIn(after).includes(chain));
      }),

    async repair() {
      const known = await record.read();
      if (known !== undefined && isEmpty(await inspect(known))) return nothing;
      return exclusively(async () => {
        const current = await record.read();
        if (current === undefined) {
          await apply(publishedIn((await list('table', ...table).catch(unlessMissing)) ?? noObjects));
          return { altered: ['missing: the record of the rules'], foreign: [] };
        }
        // Again: what was seen without the lock may have been a change that was half done.
        const report = await inspect(current);
        const { altered, foreign } = report;
        if (altered.length > 0) await apply(current.published);
        else if (foreign.length > 0) await record.write({ ...current, foreign: await foreignChains() });
        return report;
      });
    },

    async publish(host, ports, former) {
      const isKnown = former?.first === ports.first && former.count === ports.count;
      if (isKnown && ports.count === 0) return;
      await change(
        host,
        ports.count === 0 ? [] : [ports],
        async () => `${isKnown ? '' : await removalOfPublished(host)}${publishPorts(site, host, ports)}`,
      );
    },

    async unpublish(host, ports) {
      if (ports?.count === 0) return;
      await change(host, [], () =>
        ports === undefined ? removalOfPublished(host) : unpublishPorts(site, host, ports),
      );
    },
  };
}

const nothing: NodeRulesReport = { altered: [], foreign: [] };
const isEmpty = ({ altered, foreign }: NodeRulesReport) => altered.length === 0 && foreign.length === 0;

const noObjects = '{"nftables": []}';

/** What is missing or new in the table, as text; undefined if nothing. */
function differenceOfRules(known: NodeRecord, listing: string): string | undefined {
  const ports = (blocks: readonly PublishedBlock[]) => blocks.map(publishedLine).toSorted();
  return (
    difference(
      [...known.lines, ...ports(known.published)],
      [...firewallLines(listing), ...ports(publishedIn(listing))],
    ) ?? difference(known.handles, ruleHandles(listing))
  );
}

/** nft says so if the table does not exist. */
function unlessMissing(error: unknown): undefined {
  if (error instanceof HypervisorError && error.message.includes('No such file or directory'))
    return undefined;
  throw error;
}
