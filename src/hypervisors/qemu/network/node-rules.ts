import type { PortBlock } from '../../../core/hypervisor/host-spec.ts';
import { enginePort } from '../../../core/hypervisor/network.ts';
import { formatPortRange } from '../../../lib/port-range.ts';
import type { HostLayout } from '../layout.ts';
import { vethPrefix } from '../names.ts';
import type { HostLimits } from '../options.ts';
import { closedSeconds, newConnections } from './connection-limits.ts';

/** The node's firewall rules in the syntax of nft(8). Each text is one transaction: it takes effect completely or not at all. */

/** Name of this installation's table among the node's nftables. */
export const nodeTable = (site: string) => `berth_${site}`;

export const nodeChains = [
  'from_hosts',
  'prerouting',
  'output_nat',
  'postrouting',
  'input',
  'forward',
  'output',
  'opened',
  'received',
];

/** What the node's table depends on. */
export interface NodeRuleOptions {
  readonly site: string;
  readonly hostNetwork: string;
  readonly gatewayUid: number;
  readonly hostLimits: HostLimits;
}

/**
 * The node's table. All of it is replaced except the map of published ports, so that running hosts are not disturbed.
 * Other tables are not touched.
 * @param foreign chains in this table that are not Berth's; removed in the same transaction.
 */
export function nodeRules(options: NodeRuleOptions, foreign: readonly string[] = []): string {
  const { site, hostNetwork, gatewayUid, hostLimits } = options;
  const table = `inet ${nodeTable(site)}`;
  const hosts = `"${vethPrefix(site)}*"`;
  const { perSecond, burst } = newConnections(hostLimits);
  // Packets to the address of a destroyed host are rejected; otherwise the node's default route would carry them to
  // whatever has that address elsewhere.
  const elsewhere = `ip daddr ${hostNetwork} oifname != "lo" oifname != ${hosts} counter reject`;
  // Keyed by the host's address, so that there is one element for each slot and none has to expire.
  const perHost = 'type ipv4_addr; size 65535; flags dynamic;';
  const closed = `closed_${closedSeconds}s`;
  return `
add table ${table}
add map ${table} ports { type inet_service : ipv4_addr; flags interval; }
add set ${table} opened_connections { ${perHost} }
add set ${table} received_connections { ${perHost} }
add set ${table} received_rate { ${perHost} }
add ct timeout ${table} ${closed} { protocol tcp; l3proto ip; policy = { time_wait: ${closedSeconds}, close: ${closedSeconds} }; }
add chain ${table} from_hosts { type filter hook prerouting priority mangle; }
add chain ${table} prerouting { type nat hook prerouting priority dstnat; }
add chain ${table} output_nat { type nat hook output priority -100; }
add chain ${table} postrouting { type nat hook postrouting priority srcnat; }
add chain ${table} input { type filter hook input priority filter; }
add chain ${table} forward { type filter hook forward priority filter; }
add chain ${table} output { type filter hook output priority filter; }
add chain ${table} opened
add chain ${table} received
${[...nodeChains, ...foreign].map((chain) => `flush chain ${table} ${chain}`).join('\n')}
${foreign.map((chain) => `delete chain ${table} ${chain}`).join('\n')}
flush set ${table} opened_connections
flush set ${table} received_connections
flush set ${table} received_rate
table ${table} {
  chain from_hosts {
    iifname != ${hosts} return
    ct state established,related return
    fib daddr type { local, broadcast, multicast } counter drop
  }
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
    iifname ${hosts} meta l4proto != { tcp, udp, icmp } counter drop
    oifname ${hosts} meta l4proto != { tcp, udp, icmp } counter drop
    iifname ${hosts} ct state invalid counter drop
    iifname ${hosts} ct state new jump opened
    oifname ${hosts} ct state established,related accept
    oifname ${hosts} ct status dnat jump received
    oifname ${hosts} counter drop
    ${elsewhere}
  }
  chain opened {
    meta l4proto tcp ct timeout set "${closed}"
    add @opened_connections { ip saddr ct count over ${hostLimits.connections} } counter drop
  }
  chain received {
    meta l4proto tcp ct timeout set "${closed}"
    add @received_rate { ip daddr limit rate over ${perSecond}/second burst ${burst} packets } counter drop
    add @received_connections { ip daddr ct count over ${hostLimits.connections} } counter drop
    accept
  }
  chain output {
    ${elsewhere}
    oifname ${hosts} tcp dport ${enginePort} meta skuid != { 0, ${gatewayUid} } counter reject with tcp reset
  }
}
`;
}

/** Forwards a block of published ports to a host's address. Safe to repeat. */
export function publishPorts(site: string, { hostAddress }: Address, ports: PortBlock): string {
  if (ports.count === 0) return '';
  return `add element inet ${nodeTable(site)} ports { ${formatPortRange(ports)} : ${hostAddress} }\n`;
}

/** Safe to repeat: adding the element first makes sure that there is one to delete. */
export function unpublishPorts(site: string, host: Address, ports: PortBlock): string {
  return `${publishPorts(site, host, ports)}${removePorts(site, host, ports)}`;
}

/**
 * Removes a block of published ports that exists exactly so. Unlike {@link unpublishPorts}, an overlapping block can be
 * added in the same transaction; nft 1.0.6 refuses that after an addition.
 */
export function removePorts(site: string, { hostAddress }: Address, ports: PortBlock): string {
  if (ports.count === 0) return '';
  return `delete element inet ${nodeTable(site)} ports { ${formatPortRange(ports)} : ${hostAddress} }\n`;
}

type Address = Pick<HostLayout, 'hostAddress'>;
