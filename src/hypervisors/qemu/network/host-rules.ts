import type { Egress, PortBlock } from '../../../core/hypervisor/host-spec.ts';
import { enginePort } from '../../../core/hypervisor/network.ts';
import { neverOpenNetworks, specialNetworks } from '../../../core/networks.ts';
import { guestLink } from '../../../guest/link.ts';
import type { HostLayout } from '../layout.ts';
import { tap, uplink } from '../names.ts';
import type { HostLimits } from '../options.ts';
import { formatPortRange } from '../../../lib/port-range.ts';
import { closedTimeout, closedTimeoutObject, newConnections } from './connection-limits.ts';
import { networkSet } from './network-set.ts';

/** A host's firewall rules in the syntax of nft(8). Each text is one transaction: it takes effect completely or not at all. */

export interface NodeNetwork {
  /** The network of all hosts' addresses. */
  readonly hostNetwork: string;
  /** Networks that the node is attached to. */
  readonly localNetworks: readonly string[];
  /** The node's own addresses, and the networks that the operator denies to every host. */
  readonly denied: readonly string[];
  /** Addresses at which the ports of hosts are published. */
  readonly publishedAt: readonly string[];
  readonly dnsServers: readonly string[];
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
  if (ports.count > 0 && network.publishedAt.length > 0) {
    // The host's own published ports by their public address: straight back to the guest, whatever the egress is.
    const [at, range] = [`{ ${network.publishedAt.join(', ')} }`, formatPortRange(ports)];
    translate.push(
      `iifname ${tap} ip daddr ${at} meta l4proto { tcp, udp } th dport ${range} dnat ip to ${guestAddress}`,
    );
    destinations.push(
      `${to} ${at} meta l4proto { tcp, udp } ct original proto-dst ${range} ct status dnat accept`,
    );
  }
  const [dns] = network.dnsServers;
  if (egress.kind !== 'none' && dns !== undefined) {
    translate.push(
      `iifname ${tap} ip daddr ${gatewayAddress} meta l4proto { tcp, udp } th dport 53 dnat ip to ${dns}`,
    );
    destinations.push(`${to} ${gatewayAddress} ct status dnat accept`);
  }
  const never = [...neverOpenNetworks, network.hostNetwork, ...network.denied];
  const notPublic = [...never, ...specialNetworks, ...network.localNetworks];
  if (egress.kind === 'internet') {
    destinations.push(`${to} ${networkSet(notPublic)} return`, 'accept');
  }
  if (egress.kind === 'networks') {
    const closed = egress.publicOnly === true ? notPublic : never;
    destinations.push(`${to} ${networkSet(closed)} return`, `${to} ${networkSet(egress.cidrs)} accept`);
  }
  const published = [String(enginePort), ...(ports.count > 0 ? [formatPortRange(ports)] : [])];
  return hostRules({ translate, published, destinations }, limits);
}

/** The only IP protocols that pass, in either direction. */
const protocols = '{ tcp, udp, icmp }';

/** Counters of packets that are dropped on the guest's link, and of those dropped behind it. */
const linkCounters = [
  'foreign_mac',
  'foreign_address',
  'arp',
  'ipv6',
  'not_ip',
  'protocol',
  'dhcp',
  'bandwidth',
];

/** Answers to packets that a guest may not send; all others are dropped without an answer. */
const refusals = { perSecond: 100, burst: 100 };

const forwardCounters = ['refused', 'invalid', 'protocol', 'connections', 'bandwidth'];

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
  const { perSecond, burst } = newConnections(limits);
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
  // Separate rules, because an expression counts every packet that it sees. The rate first: `ct count` walks the
  // connections, which a flood must not cause.
  const connections = `limit rate over ${perSecond}/second burst ${burst} packets ${drop('connections')}
    ct count over ${limits.connections} ${drop('connections')}`;
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
    ip protocol != ${protocols} ${drop('protocol')}
    udp sport 67 ${drop('dhcp')}
    ip saddr != ${guestAddress} ${drop('foreign_address')}
    ${bandwidth}
    accept
  }
}
table inet berth {
  ${counters(forwardCounters)}
  ${closedTimeoutObject}
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ${rules.translate.join('\n    ')}
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr ${guestAddress} masquerade
  }
  chain input {
    type filter hook input priority filter; policy drop;
    jump refuse
  }
  chain output {
    type filter hook output priority filter; policy drop;
    ct state related accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname ${uplink} ${bandwidth}
    meta l4proto != ${protocols} ${drop('protocol')}
    tcp flags syn tcp option maxseg size set rt mtu
    ct state established,related goto open_connections
    # A flow without answers stays new: only its first packet, whose entry is unconfirmed, is a new connection.
    ct state new ct status confirmed goto open_connections
    ct state invalid ${drop('invalid')}
    iifname ${uplink} oifname ${tap} ct status dnat jump ingress
    iifname ${tap} oifname ${uplink} ip saddr ${guestAddress} jump egress
    iifname ${tap} oifname ${tap} ct status dnat jump egress
    jump refuse
  }
  # The guest learns at once that it may not connect; others get no answer.
  chain refuse {
    counter name dropped_refused
    iifname != ${tap} drop
    # A reset would end a connection that the table has forgotten; the peer's next packet can bring it back.
    tcp flags & (fin | syn | rst | ack) != syn drop
    limit rate over ${refusals.perSecond}/second burst ${refusals.burst} packets drop
    meta l4proto tcp reject with tcp reset
    meta l4proto udp reject with icmp port-unreachable
    drop
  }
  chain open_connections {
    ${opened} jump destinations
    ${published.join('\n    ')}
    counter name dropped_refused meta l4proto tcp reject with tcp reset
    drop
  }
  chain ingress {
    # The gateway limits these. They keep the usual timeouts: if a client's FIN is sent twice, its half-closed stream
    # counts as closed.
    tcp dport ${guestLink.enginePort} accept
    meta l4proto tcp ct timeout set "${closedTimeout}"
    ${connections}
    accept
  }
  chain egress {
    meta l4proto tcp ct timeout set "${closedTimeout}"
    ${connections}
    jump destinations
  }
  chain destinations {
    ${rules.destinations.join('\n    ')}
  }
}
`;
}
