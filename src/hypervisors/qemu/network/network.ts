import { writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import type { Egress, PortBlock } from '../../../core/hypervisor/host-spec.ts';
import { exists } from '../../../lib/exists.ts';
import { guestLink } from '../../../guest/link.ts';
import { runTool } from '../../run-tool.ts';
import { chainsIn, firewallLines, nodeFirewallLines, publishedTo } from './firewall-facts.ts';
import type { Facts } from '../integrity/manifest.ts';
import type { QemuOptions } from '../options.ts';
import type { HostLayout } from '../layout.ts';
import { tap, uplink, vethPrefix } from '../names.ts';
import {
  closedHostRules,
  nodeChains,
  nodeRules,
  nodeTable,
  openHostRules,
  publishPorts,
  removePorts,
  unpublishPorts,
} from './rules.ts';

/** The node's network and that of each host. Every method is safe to repeat. */
export interface HostNetworking {
  /**
   * Applies this installation's nftables table without disturbing running hosts.
   * @returns foreign chains that were in the table and have been removed.
   */
  open(): Promise<readonly string[]>;
  /** Makes a host's namespace with its two links, closed in both directions. */
  make(layout: HostLayout): Promise<void>;
  /**
   * Opens the host's namespace for what it may send and receive. Open connections that are not allowed any more end.
   * @param published the ports that lead to the host now; undefined if unknown, then the firewall is asked.
   */
  connect(
    layout: HostLayout,
    ports: PortBlock,
    egress: Egress,
    published: PortBlock | undefined,
  ): Promise<FirewallFacts>;
  /** Closes the namespace: the guest is cut off and every open connection ends. */
  disconnect(layout: HostLayout, ports: PortBlock | undefined): Promise<void>;
  destroy(layout: HostLayout, ports: PortBlock | undefined): Promise<void>;
  /** The rules in force for a host, in its namespace and on the node. */
  facts(layout: HostLayout): Promise<FirewallFacts>;
}

export type FirewallFacts = Required<Pick<Facts, 'firewall' | 'node firewall'>>;

export function createHostNetworking(
  options: Pick<QemuOptions, 'site' | 'hostNetwork' | 'gatewayUid' | 'dnsServers' | 'hostLimits'>,
): HostNetworking {
  const { site, hostNetwork, gatewayUid, dnsServers } = options;
  const inNamespace = (layout: HostLayout, rules: string) =>
    runTool('nsenter', [`--net=${layout.netnsPath}`, 'nft', '--file', '-'], { input: rules });
  const runOnNode = (rules: string) =>
    rules === '' ? Promise.resolve('') : runTool('nft', ['--file', '-'], { input: rules });

  /** The node's table as this process applied it, without published ports. */
  let appliedTable: readonly string[] | undefined;
  const tableLines = (listing: string) => nodeFirewallLines(listing, '');

  return {
    async open() {
      // The node routes guests' packets. This is the only setting of the node that Berth changes.
      await writeFile('/proc/sys/net/ipv4/ip_forward', '1\n');
      return applyTable();
    },

    async make(layout) {
      if (await exists(layout.netnsPath)) {
        // Complete, or half made by a killed process: the links show which.
        if (await isComplete(layout)) {
          await inNamespace(layout, closedHostRules(options.hostLimits));
          return;
        }
        await removeNamespace(layout);
      }
      await batch(
        [],
        [
          `netns add ${layout.netns}`,
          `link add ${layout.veth} type veth peer name ${uplink} netns ${layout.netns}`,
          `address add ${layout.nodeAddress}/31 dev ${layout.veth}`,
          `link set ${layout.veth} up`,
        ],
      );
      // Reverse path filter (RFC 3704): only a host's own address is accepted from its link, whatever its own rules are.
      await writeFile(`/proc/sys/net/ipv4/conf/${layout.veth}/rp_filter`, '1\n');
      await writeFile(`/proc/sys/net/ipv6/conf/${layout.veth}/disable_ipv6`, '1\n').catch(unlessMissing);
      await batch(
        ['-netns', layout.netns],
        [
          'link set lo up',
          `address add ${layout.hostAddress}/31 dev ${uplink}`,
          `link set ${uplink} up`,
          `route add default via ${layout.nodeAddress}`,
          `tuntap add dev ${tap} mode tap vnet_hdr`,
          `link set ${tap} address ${guestLink.gatewayMac}`,
          `address add ${guestLink.gatewayAddress}/${guestLink.prefixLength} dev ${tap}`,
          `link set ${tap} up`,
          // A static neighbour instead of ARP: nothing that the guest sends decides where packets go.
          `neighbour replace ${guestLink.guestAddress} lladdr ${guestLink.guestMac} dev ${tap} nud permanent`,
        ],
      );
      await inNamespace(layout, closedHostRules(options.hostLimits));
    },

    async connect(layout, ports, egress, published) {
      const network = { hostNetwork, localNetworks: localNetworks(site), dnsServers };
      const rules = openHostRules(layout, ports, egress, network, options.hostLimits);
      // Listed right after the change, in nft's own notation, as the reference for later integrity checks.
      const former = isDeepStrictEqual(ports, published) ? '' : await removalOfPublished(layout);
      const [inside, onNode] = await Promise.all([
        runTool('nsenter', [`--net=${layout.netnsPath}`, 'sh', ...changeAndList('ruleset')], {
          input: rules,
        }),
        runTool('sh', changeAndList('table', 'inet', nodeTable(site)), {
          input: `${former}${publishPorts(site, layout, ports)}`,
        }),
      ]);
      const hasDrifted = appliedTable !== undefined && !isDeepStrictEqual(tableLines(onNode), appliedTable);
      if (hasDrifted) await applyTable();
      return {
        firewall: firewallLines(inside),
        'node firewall': hasDrifted ? await nodeFacts(layout) : nodeFirewallLines(onNode, layout.hostAddress),
      };
    },

    async facts(layout) {
      const [inside, onNode] = await Promise.all([
        runTool('nsenter', [`--net=${layout.netnsPath}`, 'nft', '--json', 'list', 'ruleset']),
        nodeFacts(layout),
      ]);
      return { firewall: firewallLines(inside), 'node firewall': onNode };
    },

    async disconnect(layout, ports) {
      await unpublish(layout, ports);
      if (await exists(layout.netnsPath)) await inNamespace(layout, closedHostRules(options.hostLimits));
    },

    async destroy(layout, ports) {
      await unpublish(layout, ports);
      await removeNamespace(layout);
    },
  };

  /** Applies the node's table and remembers its listing as the reference. */
  async function applyTable(): Promise<readonly string[]> {
    // Add the table first, so that listing it does not fail.
    const before = await runTool('sh', changeAndList('table', 'inet', nodeTable(site)), {
      input: `add table inet ${nodeTable(site)}\n`,
    });
    const foreign = chainsIn(before).filter((chain) => !nodeChains.includes(chain));
    const after = await runTool('sh', changeAndList('table', 'inet', nodeTable(site)), {
      input: nodeRules(site, hostNetwork, gatewayUid, foreign),
    });
    appliedTable = tableLines(after);
    return foreign;
  }

  /** Rules that remove whatever ports lead to the host now. */
  async function removalOfPublished(layout: HostLayout): Promise<string> {
    const listing = await runTool('nft', ['--json', 'list', 'map', 'inet', nodeTable(site), 'ports']);
    return publishedTo(listing, layout.hostAddress)
      .map((ports) => removePorts(site, layout, ports))
      .join('');
  }

  async function unpublish(layout: HostLayout, ports: PortBlock | undefined): Promise<void> {
    await runOnNode(
      ports === undefined ? await removalOfPublished(layout) : unpublishPorts(site, layout, ports),
    );
  }

  async function nodeFacts(layout: HostLayout): Promise<readonly string[]> {
    const listing = await runTool('nft', ['--json', 'list', 'table', 'inet', nodeTable(site)]);
    return nodeFirewallLines(listing, layout.hostAddress);
  }

  async function removeNamespace(layout: HostLayout): Promise<void> {
    if (await exists(`/sys/class/net/${layout.veth}`)) await runTool('ip', ['link', 'delete', layout.veth]);
    if (await exists(layout.netnsPath)) await runTool('ip', ['netns', 'delete', layout.netns]);
  }
}

async function isComplete(layout: HostLayout): Promise<boolean> {
  const links = await runTool('ip', ['-netns', layout.netns, '-brief', 'link', 'show']).catch(() => '');
  return (
    (await exists(`/sys/class/net/${layout.veth}`)) &&
    links.includes(`${uplink}@`) &&
    // The neighbour entry is made last.
    (await runTool('ip', ['-netns', layout.netns, 'neighbour', 'show', 'dev', tap]).catch(() => '')).includes(
      guestLink.guestAddress,
    )
  );
}

/** Arguments of sh(1): applies the rules on standard input, then lists what is in force. */
const changeAndList = (...what: string[]) => [
  '-c',
  'nft --file - && exec nft --json list "$@"',
  'sh',
  ...what,
];

function batch(options: readonly string[], commands: readonly string[]): Promise<string> {
  return runTool('ip', [...options, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}

/** Networks that the node is attached to, without the links to hosts. */
function localNetworks(site: string): string[] {
  return Object.entries(networkInterfaces())
    .filter(([name]) => !name.startsWith(vethPrefix(site)))
    .flatMap(([, addresses]) => addresses ?? [])
    .filter(({ family, internal }) => family === 'IPv4' && !internal)
    .map(({ cidr }) => cidr)
    .filter((cidr) => cidr !== null);
}

/** A kernel without IPv6 does not have this setting and does not need it. */
function unlessMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
