import { isIPv4 } from 'node:net';
import { networkInterfaces } from 'node:os';
import type { Egress, PortBlock } from '../../../core/hypervisor/host-spec.ts';
import type { NodeRulesReport } from '../../../core/hypervisor/network.ts';
import { exists } from '../../../lib/exists.ts';
import { writeKernelFile } from '../../../lib/write-kernel-file.ts';
import { guestLink } from '../../../guest/link.ts';
import type { HostLocks } from '../../host-locks.ts';
import { runTool } from '../../run-tool.ts';
import { forgetConnections } from './conntrack.ts';
import { firewallLines, ruleHandles } from './firewall-facts.ts';
import { closedHostRules, openHostRules } from './host-rules.ts';
import { applySettings, readNetwork } from './namespace-facts.ts';
import { createNodeFirewall } from './node-firewall.ts';
import type { Facts } from '../integrity/manifest.ts';
import type { QemuOptions } from '../options.ts';
import type { HostLayout } from '../layout.ts';
import { tap, uplink, vethPrefix } from '../names.ts';

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
  /** The rules in force in a host's namespace. */
  rules(layout: HostLayout): Promise<FirewallFacts>;
  /** The same, with the namespace's links, addresses, routes and settings. */
  facts(layout: HostLayout): Promise<FirewallFacts & Pick<Facts, 'network'>>;
  /** Puts back the node's rules if they are missing or altered. */
  repairNode(): Promise<NodeRulesReport>;
}

/** What a manifest records of a host's network; the rest follows from its layout. */
export type FirewallFacts = Readonly<Record<'firewall' | 'rule handles', readonly string[]>>;

export function createHostNetworking(
  options: Pick<
    QemuOptions,
    | 'site'
    | 'runDirectory'
    | 'hostNetwork'
    | 'gatewayUid'
    | 'dnsServers'
    | 'denyNetworks'
    | 'hostLimits'
    | 'externalHost'
  >,
  locks: Pick<HostLocks, 'withLock'>,
): HostNetworking {
  const { site, hostNetwork, dnsServers, hostLimits } = options;
  const node = createNodeFirewall(options, locks);
  const { externalHost = '' } = options;
  const externalAddresses = isIPv4(externalHost) ? [externalHost] : [];

  /** Applies rules and kernel settings in the host's namespace, and lists the rules in nft's own notation. */
  const applyInside = (layout: HostLayout, rules: string) =>
    runTool('nsenter', [`--net=${layout.netnsPath}`, 'sh', '-c', applyAndList], { input: rules });
  const rules = async (layout: HostLayout) => {
    const listing = await runTool('nsenter', [
      `--net=${layout.netnsPath}`,
      ...['nft', '--json', 'list', 'ruleset'],
    ]);
    return firewallFacts(listing);
  };
  const close = (layout: HostLayout) => applyInside(layout, closedHostRules(hostLimits));

  return {
    open: () => node.open(),
    repairNode: () => node.repair(),

    async make(layout) {
      if (await exists(layout.netnsPath)) {
        // Complete, or half made by a killed process: the links show which.
        if (await isComplete(layout)) {
          await close(layout);
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
      await writeKernelFile(`/proc/sys/net/ipv4/conf/${layout.veth}/rp_filter`, '1\n');
      await writeKernelFile(`/proc/sys/net/ipv6/conf/${layout.veth}/disable_ipv6`, '1\n').catch(
        unlessMissing,
      );
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
      await close(layout);
    },

    async connect(layout, ports, egress, published) {
      const own = ownAddresses(site);
      const network = {
        hostNetwork,
        localNetworks: localNetworks(site),
        denied: [...own.map((address) => `${address}/32`), ...options.denyNetworks],
        publishedAt: [...new Set([...own, ...externalAddresses])],
        dnsServers,
      };
      // Listed right after the change, as the reference for later integrity checks.
      const [inside] = await Promise.all([
        applyInside(layout, openHostRules(layout, ports, egress, network, hostLimits)),
        node.publish(layout, ports, published),
      ]);
      return firewallFacts(inside);
    },

    rules,

    async facts(layout) {
      const [inside, network] = await Promise.all([rules(layout), readNetwork(layout)]);
      return { ...inside, network };
    },

    async disconnect(layout, ports) {
      await node.unpublish(layout, ports);
      if (await exists(layout.netnsPath)) await close(layout);
    },

    async destroy(layout, ports) {
      await node.unpublish(layout, ports);
      await removeNamespace(layout);
      // After the ports and the link: no new entries arise.
      await forgetConnections(layout.hostAddress);
    },
  };
}

const firewallFacts = (listing: string): FirewallFacts => ({
  firewall: firewallLines(listing),
  'rule handles': ruleHandles(listing),
});

async function removeNamespace(layout: HostLayout): Promise<void> {
  if (await exists(`/sys/class/net/${layout.veth}`)) await runTool('ip', ['link', 'delete', layout.veth]);
  if (await exists(layout.netnsPath)) await runTool('ip', ['netns', 'delete', layout.netns]);
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

/** A script of sh(1). Rules first, so that nothing passes while settings change. */
const applyAndList = `nft --file - || exit 1
${applySettings}
exec nft --json list ruleset`;

function batch(options: readonly string[], commands: readonly string[]): Promise<string> {
  return runTool('ip', [...options, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}

/** IPv4 addresses of the node in CIDR notation, without the links to hosts. */
function addresses(site: string) {
  return Object.entries(networkInterfaces())
    .filter(([name]) => !name.startsWith(vethPrefix(site)))
    .flatMap(([, list]) => list ?? [])
    .filter(({ family, internal }) => family === 'IPv4' && !internal);
}

/** Networks that the node is attached to. */
const localNetworks = (site: string) =>
  addresses(site)
    .map(({ cidr }) => cidr)
    .filter((cidr) => cidr !== null);

/** Published ports of other installations on this node are reached by them, and services of the node itself. */
const ownAddresses = (site: string) => addresses(site).map(({ address }) => address);

/** A kernel without IPv6 does not have this setting and does not need it. */
function unlessMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
