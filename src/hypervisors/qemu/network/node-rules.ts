import type { PortBlock } from '../../../core/hypervisor/host-spec.ts';
import { enginePort } from '../../../core/hypervisor/network.ts';
import { formatPortRange } from '../../../lib/port-range.ts';
import type { HostLayout } from '../layout.ts';
import { vethPrefix } from '../names.ts';
import type { HostLimits } from '../options.ts';
import { closedTimeout, closedTimeoutObject, newConnections } from './connection-limits.ts';
import type { PublishedBlock } from './firewall-facts.ts';

/** The node's firewall rules in the syntax of nft(8). Each text is one transaction: it takes effect completely or not at all. */

/** Name of this installation's table among the node's nftables. */
export const nodeTable = (site: string) => `berth_${site}`;

/** What the node's table depends on. */
export interface NodeRuleOptions {
  readonly site: string;
  readonly hostNetwork: string;
  readonly gatewayUid: number;
  readonly hostLimits: HostLimits;
}

/**
 * The node's table, replaced as a whole in one transaction, so that nothing of a former or altered one remains. Open connections
 * and other tables are not touched.
 * @param published port blocks and the hosts' addresses to which they lead.
 */
export function nodeRules(options: NodeRuleOptions, published: readonly PublishedBlock[] = []): string {
  const { site, hostNetwork, gatewayUid, hostLimits } = options;
  const table = `inet ${nodeTable(site)}`;
  const hosts = `"${vethPrefix(site)}*"`;
  const { perSecond, burst } = newConnections(hostLimits);
  // Packets to the address of a destroyed host are rejected; otherwise the node's default route would carry them to
  // the computer that has that address elsewhere.
  const elsewhere = `ip daddr ${hostNetwork} oifname != "lo" oifname != ${hosts} counter reject`;
  // Keyed by the host's address, so that there is one element for each slot and none has to expire.
  const perHost = 'type ipv4_addr; size 65535; flags dynamic;';
  return `
add table ${table}
delete table ${table}
table ${table} {
  map ports { type inet_service : ipv4_addr; flags interval; }
  set opened_connections { ${perHost} }
  set received_connections { ${perHost} }
  set received_rate { ${perHost} }
  ${closedTimeoutObject}
  chain from_hosts {
    type filter hook prerouting priority mangle;
    iifname != ${hosts} return
    ct state established,related return
    fib daddr type { local, broadcast, multicast } counter drop
  }
  chain prerouting {
    type nat hook prerouting priority dstnat;
    iifname ${hosts} return
    fib daddr type local meta l4proto { tcp, udp } dnat ip to th dport map @ports
  }
  chain output_nat {
    type nat hook output priority -100;
    ip daddr 127.0.0.0/8 return
    fib daddr type local meta l4proto { tcp, udp } dnat ip to th dport map @ports
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr ${hostNetwork} oifname != ${hosts} masquerade
  }
  chain input {
    type filter hook input priority filter;
    iifname ${hosts} ct state established,related accept
    iifname ${hosts} counter drop
  }
  chain opened {
    meta l4proto tcp ct timeout set "${closedTimeout}"
    add @opened_connections { ip saddr ct count over ${hostLimits.connections} } counter drop
  }
  chain received {
    meta l4proto tcp ct timeout set "${closedTimeout}"
    add @received_rate { ip daddr limit rate over ${perSecond}/second burst ${burst} packets } counter drop
    add @received_connections { ip daddr ct count over ${hostLimits.connections} } counter drop
    accept
  }
  chain forward {
    type filter hook forward priority filter;
    iifname ${hosts} oifname ${hosts} counter drop
    iifname ${hosts} meta l4proto != { tcp, udp, icmp } counter drop
    oifname ${hosts} meta l4proto != { tcp, udp, icmp } counter drop
    iifname ${hosts} ct state invalid counter drop
    iifname ${hosts} ct state new jump opened
    oifname ${hosts} ct state established,related accept
    # A flow without answers stays new: only its first packet, whose entry is unconfirmed, is a new connection.
    oifname ${hosts} ct status confirmed ct status dnat accept
    oifname ${hosts} ct status dnat jump received
    oifname ${hosts} counter drop
    ${elsewhere}
  }
  chain output {
    type filter hook output priority filter;
    ${elsewhere}
    oifname ${hosts} tcp dport ${enginePort} meta skuid != { 0, ${gatewayUid} } counter reject with tcp reset
  }
}
${published.map((block) => publishPorts(site, block, block.ports)).join('')}`;
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
