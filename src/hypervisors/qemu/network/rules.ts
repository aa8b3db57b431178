import type { Egress, PortBlock } from '../../../core/hypervisor/host-spec.ts';
import { enginePort } from '../../../core/hypervisor/network.ts';
import { specialNetworks } from '../../../core/networks.ts';
import { guestLink } from '../../../guest/link.ts';
import type { HostLayout } from '../layout.ts';
import { tap, uplink, vethPrefix } from '../names.ts';
import type { HostLimits } from '../options.ts';
import { networkRange } from '../../../lib/ipv4.ts';
import { formatPortRange } from '../../../lib/port-range.ts';

/** Firewall rules in the syntax of nft(8). Each text is one transaction: it takes effect completely or not at all. */

/** Denied even if an operator's list of networks contains them. */
const alwaysDenied = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3'];

export interface NodeNetwork {
  /** The network of all hosts' addresses. */
  readonly hostNetwork: string;
  /** Networks that the node is attached to. */
  readonly localNetworks: readonly string[];
  readonly dnsServers: readonly string[];
}

/** New connections per second and direction; a flood of them would use the CPUs of all hosts. */
const newConnections = { perSecond: 500, burst: 1_000 };

/** Name of this installation's table among the node's nftables. */
export const nodeTable = (site: string) => `berth_${site}`;

export const nodeChains = ['prerouting', 'output_nat', 'postrouting', 'input', 'forward', 'output'];

/**
 * The node's table. All of it is replaced except the map of published ports, so that running hosts are not disturbed.
 * Other tables are not touched.
 * @param foreign chains in this table that are not Berth's; removed in the same transaction.
 */
export function nodeRules(
  site: string,
  hostNetwork: string,
  gatewayUid: number,
  foreign: readonly string[] = [],
): string {
  const table = `inet ${nodeTable(site)}`;
  const hosts = `"${vethPrefix(site)}*"`;
  // Packets to the address of a destroyed host are rejected; otherwise the node's default route would carry them to
  // whatever has that address elsewhere.
  const elsewhere = `ip daddr ${hostNetwork} oifname != "lo" oifname != ${hosts} counter reject`;
  return `
add table ${table}
add map ${table} ports { type inet_service : ipv4_addr; flags interval; }
add chain ${table} prerouting { type nat hook prerouting priority dstnat; }
add chain ${table} output_nat { type nat hook output priority -100; }
add chain ${table} postrouting { type nat hook postrouting priority srcnat; }
add chain ${table} input { type filter hook input priority filter; }
add chain ${table} forward { type filter hook forward priority filter; }
add chain ${table} output { type filter hook output priority filter; }
${[...nodeChains, ...foreign].map((chain) => `flush chain ${table} ${chain}`).join('\n')}
${foreign.map((chain) => `delete chain ${table} ${chain}`).join('\n')}
table ${table} {
  chain prerouting {
    iifname ${hosts} return
    fib daddr type local meta l4proto { tcp, udp } dnat ip to th dport map @ports
  }
  chain output_nat {
    ip daddr 127.0.0.0/8 return
    fib daddr type local meta l4proto { tcp, udp } dnat ip to th dport map @ports
  }
  chain postrouting {
    ip saddr ${hostNetwork} oifname != ${hosts} masquerade
  }
  chain input {
    iifname ${hosts} ct state established,related accept
    iifname ${hosts} counter drop
  }
  chain forward {
    iifname ${hosts} oifname ${hosts} counter drop
    oifname ${hosts} ct state established,related accept
    oifname ${hosts} ct status dnat accept
    oifname ${hosts} counter drop
    ${elsewhere}
  }
  chain output {
    ${elsewhere}
    oifname ${hosts} tcp dport ${enginePort} meta skuid != { 0, ${gatewayUid} } counter reject with tcp reset
  }
}
`;
}

/** Forwards a block of published ports to a host. Safe to repeat. */
export function publishPorts(site: string, layout: HostLayout, ports: PortBlock): string {
  if (ports.count === 0) return '';
  return `add element inet ${nodeTable(site)} ports { ${formatPortRange(ports)} : ${layout.hostAddress} }\n`;
}

/** Safe to repeat: adding the element first makes sure that there is one to delete. */
export function unpublishPorts(site: string, layout: HostLayout, ports: PortBlock): string {
  return `${publishPorts(site, layout, ports)}${removePorts(site, layout, ports)}`;
}

/**
 * Removes a block of published ports that exists exactly so. Unlike {@link unpublishPorts}, an overlapping block can be
 * added in the same transaction; nft 1.0.6 refuses that after an addition.
 */
export function removePorts(site: string, layout: HostLayout, ports: PortBlock): string {
  if (ports.count === 0) return '';
  return `delete element inet ${nodeTable(site)} ports { ${formatPortRange(ports)} : ${layout.hostAddress} }\n`;
}

/**
 * Rules of a host's namespace before its guest has its identity, and after it was cut off: nothing passes in either
 * direction, and open connections end.
 */
export function closedHostRules(limits: HostLimits): string {
  return hostRules({ translate: [], published: [], destinations: [] }, limits);
}

/**
 * Rules of a host's namespace after its guest got its identity. Only the guest's one source address passes. The engine
 * is reachable only from the node's end of the link, which only the gateway's user may use (see nodeRules).
 */
export function openHostRules(
  layout: HostLayout,
  ports: PortBlock,
  egress: Egress,
  network: NodeNetwork,
  limits: HostLimits,
): string {
  const { guestAddress, gatewayAddress } = guestLink;
  const translate = [
    `iifname ${uplink} ip saddr ${layout.nodeAddress} ip daddr ${layout.hostAddress} tcp dport ${enginePort} dnat ip to ${guestAddress}:${guestLink.enginePort}`,
  ];
  if (ports.count > 0) {
    translate.push(
      `iifname ${uplink} ip daddr ${layout.hostAddress} meta l4proto { tcp, udp } th dport ${formatPortRange(ports)} dnat ip to ${guestAddress}`,
    );
  }
  // Matched on the connection's original destination, so that a rule applies to all its packets in both directions.
  const to = 'ct original ip daddr';
  const destinations: string[] = [];
  const [dns] = network.dnsServers;
  if (egress.kind !== 'none' && dns !== undefined) {
    translate.push(
      `iifname ${tap} ip daddr ${gatewayAddress} meta l4proto { tcp, udp } th dport 53 dnat ip to ${dns}`,
    );
    destinations.push(`${to} ${gatewayAddress} ct status dnat accept`);
  }
  const own = [network.hostNetwork, ...network.localNetworks];
  if (egress.kind === 'internet') {
    destinations.push(`${to} ${set([...specialNetworks, ...own])} return`, 'accept');
  }
  if (egress.kind === 'networks') {
    const never =
      egress.publicOnly === true ? [...specialNetworks, ...own] : [...alwaysDenied, network.hostNetwork];
    destinations.push(`${to} ${set(never)} return`, `${to} ${set(egress.cidrs)} accept`);
  }
  const published = [String(enginePort), ...(ports.count > 0 ? [formatPortRange(ports)] : [])];
  return hostRules({ translate, published, destinations }, limits);
}

/** Counters of packets that are dropped on the guest's link, and of those dropped behind it. */
const linkCounters = ['foreign_mac', 'foreign_address', 'arp', 'ipv6', 'not_ip', 'dhcp', 'bandwidth'];

const forwardCounters = ['refused', 'invalid', 'connections', 'bandwidth'];

/** All rules of the namespace; any others are removed in the same transaction. */
function hostRules(
  rules: {
    readonly translate: readonly string[];
    /** Ports of the host's address that accept connections. */
    readonly published: readonly string[];
    /** Rules that accept the destinations that the guest may connect to, and return for all others. */
    readonly destinations: readonly string[];
  },
  limits: HostLimits,
): string {
  const { guestAddress, guestMac } = guestLink;
  const drop = (counter: string) => `counter name dropped_${counter} drop`;
  const counters = (names: readonly string[]) =>
    names.map((name) => `counter dropped_${name} { }`).join('\n  ');
  // In bytes, because nft's kbytes are 1024 bytes.
  const bytes = limits.bandwidthMbit * 125_000;
  const bandwidth = `limit rate over ${bytes} bytes/second burst ${bytes / 4} bytes ${drop('bandwidth')}`;
  const { perSecond, burst } = newConnections;
  const opened = `ct original ip saddr ${guestAddress}`;
  const others = `ct original ip saddr != ${guestAddress}`;
  const published =
    rules.published.length === 0
      ? []
      : [
          `${others} meta l4proto { tcp, udp } ct original proto-dst { ${rules.published.join(', ')} } accept`,
          // ICMP messages of routers about such a connection.
          `${others} meta l4proto icmp ct state related accept`,
        ];
  // Separate rules, because an expression counts every packet that it sees.
  const connections = `ct count over ${limits.connections} ${drop('connections')}
    limit rate over ${perSecond}/second burst ${burst} packets ${drop('connections')}`;
  return `
flush ruleset
table netdev berth {
  ${counters(linkCounters)}
  chain guest {
    type filter hook ingress device "${tap}" priority filter; policy drop;
    ether saddr != ${guestMac} ${drop('foreign_mac')}
    ether type arp ${drop('arp')}
    ether type ip6 ${drop('ipv6')}
    ether type != ip ${drop('not_ip')}
    udp sport 67 ${drop('dhcp')}
    ip saddr != ${guestAddress} ${drop('foreign_address')}
    ${bandwidth}
    accept
  }
}
table inet berth {
  ${counters(forwardCounters)}
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ${rules.translate.join('\n    ')}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname ${uplink} ip saddr ${guestAddress} masquerade
  }
  chain input {
    type filter hook input priority filter; policy drop;
    ${drop('refused')}
  }
  chain output {
    type filter hook output priority filter; policy drop;
    ct state related accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname ${uplink} ${bandwidth}
    tcp flags syn tcp option maxseg size set rt mtu
    ct state established,related goto open_connections
    ct state invalid ${drop('invalid')}
    iifname ${uplink} oifname ${tap} ct status dnat jump ingress
    iifname ${tap} oifname ${uplink} ip saddr ${guestAddress} jump egress
    ${drop('refused')}
  }
  chain open_connections {
    ${opened} jump destinations
    ${published.join('\n    ')}
    counter name dropped_refused meta l4proto tcp reject with tcp reset
    drop
  }
  chain ingress {
    tcp dport ${guestLink.enginePort} accept
    ${connections}
    accept
  }
  chain egress {
    ${connections}
    jump destinations
  }
  chain destinations {
    ${rules.destinations.join('\n    ')}
  }
}
`;
}

/** A set without networks that another one contains, because nft refuses overlapping intervals. */
function set(networks: readonly string[]): string {
  const ranges = networks.map((network) => ({ network, ...networkRange(network) }));
  const outermost = ranges.filter(
    (range, index) =>
      !ranges.some(
        (other, at) =>
          at !== index &&
          other.first <= range.first &&
          other.last >= range.last &&
          // Of two equal networks the first stays.
          (other.last - other.first > range.last - range.first || at < index),
      ),
  );
  return `{ ${outermost.map(({ network }) => network).join(', ')} }`;
}
