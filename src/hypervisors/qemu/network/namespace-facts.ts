import { readFile } from 'node:fs/promises';
import { guestLink } from '../../../guest/link.ts';
import { exists } from '../../../lib/exists.ts';
import { runTool } from '../../run-tool.ts';
import type { HostLayout } from '../layout.ts';
import { tap, uplink } from '../names.ts';

/**
 * Links, addresses, routes and kernel settings of a host's namespace and of the node's end of its link, as lines. They
 * follow from the layout, so nothing has to be recorded.
 */

const perLink = (family: string, keys: Readonly<Record<string, string>>) =>
  ['all', uplink, tap].flatMap((link) =>
    Object.entries(keys).map(([key, value]) => [`${family}/conf/${link}/${key}`, value] as const),
  );

/** Settings of the namespace below /proc/sys/net (ip-sysctl in the kernel's documentation), in the order of writing. */
const settings = [
  // First, because it resets others.
  ['ipv4/ip_forward', '1'] as const,
  ...perLink('ipv4', {
    rp_filter: '1',
    route_localnet: '0',
    accept_redirects: '0',
    // The guest must not learn a way around the rules to its own published ports.
    send_redirects: '0',
    accept_source_route: '0',
    proxy_arp: '0',
  }),
  ...perLink('ipv6', { disable_ipv6: '1' }),
  // The usual value, which streams to the engine need; rules give others a shorter one. Former versions set that here.
  ['netfilter/nf_conntrack_tcp_timeout_time_wait', '120'] as const,
];

/** Settings of the node's end of the link, and which values are as they should be. */
const nodeSettings = [
  // udev sets it to 2, "loose", on some distributions; the rules of the namespace check sources as well.
  { file: 'ipv4', key: 'rp_filter', allowed: ['1', '2'] },
  { file: 'ipv4', key: 'route_localnet', allowed: ['0'] },
  { file: 'ipv6', key: 'disable_ipv6', allowed: ['1'] },
] as const;

/** Commands of sh(1) that write the settings, for a shell in the namespace. A kernel without IPv6 lacks some. */
export const applySettings = settings
  .map(([file, value]) => `[ ! -e /proc/sys/net/${file} ] || echo ${value} > /proc/sys/net/${file} || exit 1`)
  .join('\n');

/** What {@link readNetwork} finds if nobody has changed anything. */
export function expectedNetwork(layout: HostLayout): readonly string[] {
  const { guestAddress, gatewayAddress, prefixLength, guestMac, gatewayMac } = guestLink;
  return [
    'address 127.0.0.1/8 on lo',
    `address ${layout.hostAddress}/31 on ${uplink}`,
    `address ${gatewayAddress}/${prefixLength} on ${tap}`,
    `address ${layout.nodeAddress}/31 on the node's ${layout.veth}`,
    'link lo',
    `link ${tap} ${gatewayMac}`,
    `link ${uplink}`,
    `neighbour ${guestAddress} is ${guestMac} on ${tap}`,
    `route ${layout.nodeAddress}/31 on ${uplink}`,
    `route ${guestNetwork} on ${tap}`,
    `route default via ${layout.nodeAddress} on ${uplink}`,
    'rule 0 to table local',
    'rule 32766 to table main',
    'rule 32767 to table default',
  ].toSorted();
}

/** The guest's link is a /30; its first address names it. */
const guestNetwork = `${guestLink.gatewayAddress.replace(/\d+$/, (last) => String(Number(last) & ~3))}/${guestLink.prefixLength}`;

/** Printed by the script between its parts; no tool prints it. */
const separator = '----';

/** Several JSON texts: ip(8) prints one for each family of routes. */
const script = [
  'ip -json address show',
  'ip -json route show table all',
  'ip -json rule show',
  'ip -json neighbour show nud permanent',
  'cat /proc/net/ip_tables_names /proc/net/ip6_tables_names /proc/net/arp_tables_names 2>/dev/null',
  `grep -s . ${settings.map(([file]) => `/proc/sys/net/${file}`).join(' ')}`,
].join(`\necho; echo ${separator}\n`);

/**
 * The network as it is, in the notation of {@link expectedNetwork}; settings and tables of iptables only if they differ.
 * @throws HypervisorError if the namespace does not exist.
 */
export async function readNetwork(layout: HostLayout): Promise<readonly string[]> {
  const [inside, node, nodeLines] = await Promise.all([
    runTool('nsenter', [`--net=${layout.netnsPath}`, 'sh'], { input: script }),
    runTool('ip', ['-json', 'address', 'show', 'dev', layout.veth]),
    alteredNodeSettings(layout),
  ]);
  const [links = '', routes = '', rules = '', neighbours = '', tables = '', values = ''] = inside.split(
    `${separator}\n`,
  );
  const found = new Map(
    values.split('\n').map((line) => line.replace('/proc/sys/net/', '').split(':') as [string, string]),
  );
  return [
    ...(parse(links) as Link[]).flatMap(linkLines),
    ...(parse(node) as Link[]).flatMap((link) => addressLines(link, "the node's ")),
    ...(parse(routes) as Route[]).flatMap(routeLines),
    ...(parse(rules) as Rule[]).map(ruleLine),
    ...(parse(neighbours) as Neighbour[]).map(
      ({ dst, dev, lladdr = '' }) => `neighbour ${dst} is ${lladdr} on ${dev}`,
    ),
    ...tables
      .split('\n')
      .filter(Boolean)
      .map((table) => `table ${table} of iptables`),
    ...settings
      .filter(([file, value]) => (found.get(file) ?? value) !== value)
      .map(([file]) => `setting ${file} is ${found.get(file) ?? ''}`),
    ...nodeLines,
  ].toSorted();
}

interface Link {
  readonly ifname: string;
  readonly flags: readonly string[];
  readonly address?: string;
  readonly addr_info?: readonly { readonly local: string; readonly prefixlen: number }[];
}

interface Route {
  readonly type?: string;
  readonly protocol?: string;
  readonly dst: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly table?: string;
}

interface Rule {
  readonly priority: number;
  readonly table?: string;
  readonly src?: string;
}

interface Neighbour {
  readonly dst: string;
  readonly dev: string;
  readonly lladdr?: string;
}

/** The objects of all arrays in a part of the script's output. */
function parse(text: string): readonly unknown[] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .flatMap((line) => JSON.parse(line) as unknown[]);
}

function linkLines(link: Link): string[] {
  const { ifname, flags, address = '' } = link;
  // The other addresses are random.
  const mac = ifname === tap ? ` ${address}` : '';
  return [`link ${ifname}${mac}${flags.includes('UP') ? '' : ' (down)'}`, ...addressLines(link, '')];
}

function addressLines({ ifname, addr_info: addresses = [] }: Link, whose: string): string[] {
  return addresses.map(({ local, prefixlen }) => `address ${local}/${prefixlen} on ${whose}${ifname}`);
}

/** The kernel adds these by itself for each address. */
const automatic = new Set(['local', 'broadcast', 'multicast', 'anycast']);

function routeLines({ type = '', protocol, dst, gateway, dev = '', table }: Route): string[] {
  if (automatic.has(type) && protocol === 'kernel') return [];
  const via = gateway === undefined ? '' : ` via ${gateway}`;
  return [
    `route ${type === '' ? '' : `${type} `}${dst}${via} on ${dev}${table === undefined ? '' : ` in ${table}`}`,
  ];
}

function ruleLine({ priority, table, src, ...others }: Rule): string {
  const rest = JSON.stringify({ ...(src !== 'all' && { src }), ...others });
  return `rule ${priority} to table ${table ?? 'none'}${rest === '{}' ? '' : ` ${rest}`}`;
}

async function alteredNodeSettings({ veth }: HostLayout): Promise<string[]> {
  const lines = await Promise.all(
    nodeSettings.map(async ({ file, key, allowed }) => {
      const path = `/proc/sys/net/${file}/conf/${veth}/${key}`;
      if (!(await exists(path))) return [];
      const value = (await readFile(path, 'utf8')).trim();
      return allowed.some((one) => one === value) ? [] : [`setting ${key} of the node's ${veth} is ${value}`];
    }),
  );
  return lines.flat();
}
