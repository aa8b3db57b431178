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

/** The network of this machine and of each host on it. Everything is safe to repeat. */
export interface HostNetworking {
  /**
   * Lays down this installation's own table; hosts that run notice nothing.
   * @returns the chains of others that were in it, and are gone.
   */
  open(): Promise<readonly string[]>;
  /** Makes a host's namespace, with its two links; nothing passes through it. */
  make(place: HostLayout): Promise<void>;
  /**
   * Lets through what the host may send and receive; of the connections that are open, only what it still may.
   * @param published the ports that lead to it by now, if any do; undefined: only the firewall knows.
   */
  connect(
    place: HostLayout,
    ports: PortBlock,
    egress: Egress,
    published: PortBlock | undefined,
  ): Promise<FirewallFacts>;
  /** Closes it again: the guest is cut off, and so is every connection that is open. */
  disconnect(place: HostLayout, ports: PortBlock | undefined): Promise<void>;
  destroy(place: HostLayout, ports: PortBlock | undefined): Promise<void>;
  /** The rules that are in force for a host, in its namespace and on the machine. */
  facts(place: HostLayout): Promise<FirewallFacts>;
}

export type FirewallFacts = Required<Pick<Facts, 'firewall' | 'machine firewall'>>;

export function createHostNetworking(
  options: Pick<QemuOptions, 'site' | 'hostNetwork' | 'gatewayUid' | 'dnsServers' | 'hostLimits'>,
): HostNetworking {
  const { site, hostNetwork, gatewayUid, dnsServers } = options;
  const inNamespace = (place: HostLayout, rules: string) =>
    runTool('nsenter', [`--net=${place.netnsPath}`, 'nft', '--file', '-'], { input: rules });
  const onMachine = (rules: string) =>
    rules === '' ? Promise.resolve('') : runTool('nft', ['--file', '-'], { input: rules });

  /** The machine's table as this process has laid it down, what is published apart. */
  let laidDown: readonly string[] | undefined;
  const tableLines = (listing: string) => nodeFirewallLines(listing, '');

  return {
    async open() {
      // Guests' packets pass through this machine. It is the one setting of the machine that is changed.
      await writeFile('/proc/sys/net/ipv4/ip_forward', '1\n');
      return layDown();
    },

    async make(place) {
      if (await exists(place.netnsPath)) {
        // Made whole, or by somebody who was killed in the middle: the links tell.
        if (await isWhole(place)) {
          await inNamespace(place, closedHostRules(options.hostLimits));
          return;
        }
        await removeNamespace(place);
      }
      await batch(
        [],
        [
          `netns add ${place.netns}`,
          `link add ${place.veth} type veth peer name ${uplink} netns ${place.netns}`,
          `address add ${place.nodeAddress}/31 dev ${place.veth}`,
          `link set ${place.veth} up`,
        ],
      );
      // Nothing but its own address comes from a host (RFC 3704), whatever the rules behind this link are.
      await writeFile(`/proc/sys/net/ipv4/conf/${place.veth}/rp_filter`, '1\n');
      await writeFile(`/proc/sys/net/ipv6/conf/${place.veth}/disable_ipv6`, '1\n').catch(unlessMissing);
      await batch(
        ['-netns', place.netns],
        [
          'link set lo up',
          `address add ${place.hostAddress}/31 dev ${uplink}`,
          `link set ${uplink} up`,
          `route add default via ${place.nodeAddress}`,
          `tuntap add dev ${tap} mode tap vnet_hdr`,
          `link set ${tap} address ${guestLink.gatewayMac}`,
          `address add ${guestLink.gatewayAddress}/${guestLink.prefixLength} dev ${tap}`,
          `link set ${tap} up`,
          // The guest sends no ARP, and is asked none: nothing that it says decides where packets go.
          `neighbour replace ${guestLink.guestAddress} lladdr ${guestLink.guestMac} dev ${tap} nud permanent`,
        ],
      );
      await inNamespace(place, closedHostRules(options.hostLimits));
    },

    async connect(place, ports, egress, published) {
      const network = { hostNetwork, localNetworks: localNetworks(site), dnsServers };
      const rules = openHostRules(place, ports, egress, network, options.hostLimits);
      // What is listed at once is what was asked for, in nft's own words: whatever is found later is held against it.
      const former = isDeepStrictEqual(ports, published) ? '' : await measuredRemoval(place);
      const [inside, onTheMachine] = await Promise.all([
        runTool('nsenter', [`--net=${place.netnsPath}`, 'sh', ...changeAndList('ruleset')], { input: rules }),
        runTool('sh', changeAndList('table', 'inet', nodeTable(site)), {
          input: `${former}${publishPorts(site, place, ports)}`,
        }),
      ]);
      const isAltered = laidDown !== undefined && !isDeepStrictEqual(tableLines(onTheMachine), laidDown);
      if (isAltered) await layDown();
      return {
        firewall: firewallLines(inside),
        'machine firewall': isAltered
          ? await machineFacts(place)
          : nodeFirewallLines(onTheMachine, place.hostAddress),
      };
    },

    async facts(place) {
      const [inside, onTheMachine] = await Promise.all([
        runTool('nsenter', [`--net=${place.netnsPath}`, 'nft', '--json', 'list', 'ruleset']),
        machineFacts(place),
      ]);
      return { firewall: firewallLines(inside), 'machine firewall': onTheMachine };
    },

    async disconnect(place, ports) {
      await unpublish(place, ports);
      if (await exists(place.netnsPath)) await inNamespace(place, closedHostRules(options.hostLimits));
    },

    async destroy(place, ports) {
      await unpublish(place, ports);
      await removeNamespace(place);
    },
  };

  /** Makes the machine's table what it is to be; what is found there then is what it must stay. */
  async function layDown(): Promise<readonly string[]> {
    // Added first, so that there is something to list.
    const before = await runTool('sh', changeAndList('table', 'inet', nodeTable(site)), {
      input: `add table inet ${nodeTable(site)}\n`,
    });
    const foreign = chainsIn(before).filter((chain) => !nodeChains.includes(chain));
    const after = await runTool('sh', changeAndList('table', 'inet', nodeTable(site)), {
      input: nodeRules(site, hostNetwork, gatewayUid, foreign),
    });
    laidDown = tableLines(after);
    return foreign;
  }

  /** What ends the ways that lead to the host by now. */
  async function measuredRemoval(place: HostLayout): Promise<string> {
    const listing = await runTool('nft', ['--json', 'list', 'map', 'inet', nodeTable(site), 'ports']);
    return publishedTo(listing, place.hostAddress)
      .map((ports) => removePorts(site, place, ports))
      .join('');
  }

  async function unpublish(place: HostLayout, ports: PortBlock | undefined): Promise<void> {
    await onMachine(ports === undefined ? await measuredRemoval(place) : unpublishPorts(site, place, ports));
  }

  async function machineFacts(place: HostLayout): Promise<readonly string[]> {
    const listing = await runTool('nft', ['--json', 'list', 'table', 'inet', nodeTable(site)]);
    return nodeFirewallLines(listing, place.hostAddress);
  }

  async function removeNamespace(place: HostLayout): Promise<void> {
    if (await exists(`/sys/class/net/${place.veth}`)) await runTool('ip', ['link', 'delete', place.veth]);
    if (await exists(place.netnsPath)) await runTool('ip', ['netns', 'delete', place.netns]);
  }
}

async function isWhole(place: HostLayout): Promise<boolean> {
  const links = await runTool('ip', ['-netns', place.netns, '-brief', 'link', 'show']).catch(() => '');
  return (
    (await exists(`/sys/class/net/${place.veth}`)) &&
    links.includes(`${uplink}@`) &&
    // The last thing to be made.
    (await runTool('ip', ['-netns', place.netns, 'neighbour', 'show', 'dev', tap]).catch(() => '')).includes(
      guestLink.guestAddress,
    )
  );
}

/** Arguments of sh(1): takes rules on its input, and lists what is in force then. */
const changeAndList = (...what: string[]) => [
  '-c',
  'nft --file - && exec nft --json list "$@"',
  'sh',
  ...what,
];

function batch(options: readonly string[], commands: readonly string[]): Promise<string> {
  return runTool('ip', [...options, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}

/** The networks that this machine is part of, our own links left out. */
function localNetworks(site: string): string[] {
  return Object.entries(networkInterfaces())
    .filter(([name]) => !name.startsWith(vethPrefix(site)))
    .flatMap(([, addresses]) => addresses ?? [])
    .filter(({ family, internal }) => family === 'IPv4' && !internal)
    .map(({ cidr }) => cidr)
    .filter((cidr) => cidr !== null);
}

/** A kernel without IPv6 has no such setting, and no need of it. */
function unlessMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error;
}
