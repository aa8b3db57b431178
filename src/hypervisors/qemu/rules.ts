import { guestLink } from '../../guest/link.ts';
import { type Egress, enginePort, type PortBlock } from '../../core/hypervisor.ts';
import { type Place, tap, uplink, vethPrefix } from './place.ts';

/**
 * The firewall rules as nft(8) reads them. Each text is one transaction: all of it takes effect, or nothing.
 */

/** What a guest on the internet must not reach: private, link-local and special networks (RFC 6890). */
const neverInternet = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '224.0.0.0/3',
];

/** Not even an operator's list of networks opens these. */
const neverAtAll = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3'];

export interface MachineNetwork {
  /** The network of all hosts' addresses. */
  readonly hostNetwork: string;
  /** Networks that this machine is part of. */
  readonly localNetworks: readonly string[];
  readonly dnsServers: readonly string[];
}

/** The name of this installation's table among the machine's own rules. */
export const machineTable = (site: string) => `berth_${site}`;

/**
 * The machine's own table: made anew as a whole, its map of published ports apart, so that running hosts notice
 * nothing. Nothing of anybody else's rules is touched.
 */
export function machineRules(site: string, hostNetwork: string, gatewayUid: number): string {
  const table = `inet ${machineTable(site)}`;
  const hosts = `"${vethPrefix(site)}*"`;
  // The address of a host that has gone leads nowhere: without this, by the machine's default route, to somebody
  // else who has that address.
  const elsewhere = `ip daddr ${hostNetwork} oifname != "lo" oifname != ${hosts} counter reject`;
  const chains = ['prerouting', 'output_nat', 'postrouting', 'input', 'forward', 'output'];
  return `
add table ${table}
add map ${table} ports { type inet_service : ipv4_addr; flags interval; }
add chain ${table} prerouting { type nat hook prerouting priority dstnat; }
add chain ${table} output_nat { type nat hook output priority -100; }
add chain ${table} postrouting { type nat hook postrouting priority srcnat; }
add chain ${table} input { type filter hook input priority filter; }
add chain ${table} forward { type filter hook forward priority filter; }
add chain ${table} output { type filter hook output priority filter; }
${chains.map((chain) => `flush chain ${table} ${chain}`).join('\n')}
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

/** Leads a block of published ports to a host. Safe to repeat. */
export function publishPorts(site: string, place: Place, ports: PortBlock): string {
  if (ports.count === 0) return '';
  return `add element inet ${machineTable(site)} ports { ${range(ports)} : ${place.hostAddress} }\n`;
}

/** Safe to repeat: what is added first is certainly there to be deleted. */
export function unpublishPorts(site: string, place: Place, ports: PortBlock): string {
  if (ports.count === 0) return '';
  const element = `inet ${machineTable(site)} ports { ${range(ports)} : ${place.hostAddress} }`;
  return `add element ${element}\ndelete element ${element}\n`;
}

/** A host's namespace before its guest has an identity of its own: nothing passes, in either direction. */
export function closedHostRules(): string {
  return hostRules({ translate: [], forward: [] });
}

/**
 * A host's namespace once its guest is itself. Only the guest's one source address passes; the engine is
 * reached from the machine's end of the link alone, where only the gateway's user may send (machineRules).
 */
export function openHostRules(
  place: Place,
  ports: PortBlock,
  egress: Egress,
  network: MachineNetwork,
): string {
  const { guestAddress, gatewayAddress } = guestLink;
  const translate = [
    `iifname ${uplink} ip saddr ${place.machineAddress} ip daddr ${place.hostAddress} tcp dport ${enginePort} dnat ip to ${guestAddress}:${guestLink.enginePort}`,
  ];
  if (ports.count > 0) {
    translate.push(
      `iifname ${uplink} ip daddr ${place.hostAddress} meta l4proto { tcp, udp } th dport ${range(ports)} dnat ip to ${guestAddress}`,
    );
  }
  const forward: string[] = [];
  const [dns] = network.dnsServers;
  if (egress.kind !== 'none' && dns !== undefined) {
    translate.push(
      `iifname ${tap} ip daddr ${gatewayAddress} meta l4proto { tcp, udp } th dport 53 dnat ip to ${dns}`,
    );
    forward.push(`ct original ip daddr ${gatewayAddress} ct status dnat accept`);
  }
  const own = [network.hostNetwork, ...network.localNetworks];
  if (egress.kind === 'internet') {
    forward.push(`ip daddr ${set([...neverInternet, ...own])} counter drop`, 'accept');
  }
  if (egress.kind === 'networks') {
    forward.push(
      `ip daddr ${set([...neverAtAll, network.hostNetwork])} counter drop`,
      `ip daddr ${set(egress.cidrs)} accept`,
    );
  }
  return hostRules({ translate, forward });
}

function hostRules(rules: { translate: readonly string[]; forward: readonly string[] }): string {
  const { guestAddress, guestMac } = guestLink;
  return `
add table inet berth
delete table inet berth
add table netdev berth
delete table netdev berth
table netdev berth {
  chain guest {
    type filter hook ingress device "${tap}" priority filter; policy drop;
    ether saddr ${guestMac} ip saddr ${guestAddress} accept
    counter
  }
}
table inet berth {
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
  }
  chain output {
    type filter hook output priority filter; policy drop;
    ct state related accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    tcp flags syn tcp option maxseg size set rt mtu
    ct state established,related accept
    iifname ${uplink} oifname ${tap} ct status dnat accept
    iifname ${tap} oifname ${uplink} ip saddr ${guestAddress} jump egress
  }
  chain egress {
    ${rules.forward.join('\n    ')}
  }
}
`;
}

function range(ports: PortBlock): string {
  return ports.count === 1 ? String(ports.first) : `${ports.first}-${ports.first + ports.count - 1}`;
}

/** nft refuses a set whose intervals overlap: what another network covers is left out. */
function set(networks: readonly string[]): string {
  const ranges = networks.map((network) => {
    const [address = '', length = '32'] = network.split('/');
    const number = address.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
    const size = 2 ** (32 - Number(length));
    const first = number - (number % size);
    return { network, first, last: first + size - 1 };
  });
  const kept = ranges.filter(
    (range, index) =>
      !ranges.some(
        (other, at) =>
          at !== index &&
          other.first <= range.first &&
          other.last >= range.last &&
          // Of two equal ones the first is kept.
          (other.last - other.first > range.last - range.first || at < index),
      ),
  );
  return `{ ${kept.map(({ network }) => network).join(', ')} }`;
}
