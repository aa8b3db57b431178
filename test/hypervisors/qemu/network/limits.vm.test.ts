import { connect } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { enginePort } from '../../../../src/core/hypervisor/network.ts';
import { guestLink } from '../../../../src/guest/link.ts';
import { layoutOf } from '../../../../src/hypervisors/qemu/layout.ts';
import { forgetConnections } from '../../../../src/hypervisors/qemu/network/conntrack.ts';
import { expectedNetwork } from '../../../../src/hypervisors/qemu/network/namespace-facts.ts';
import { eventually } from '../../../support/eventually.ts';
import {
  busybox,
  connection,
  denied,
  dropped,
  firstPort,
  guest,
  inHost,
  layout,
  makeNamespaceGuest,
  network,
  node,
  one,
  options,
  outside,
  outsideLink,
  ports,
  removeNamespaceGuest,
  run,
  site,
  to,
} from '../../../support/namespace-guest.ts';

/** What a host may reach and take, with a namespace in place of the guest. */
beforeAll(makeNamespaceGuest, 60_000);
afterAll(removeNamespaceGuest);
/** Entries of a flood would count in the next test. */
afterEach(async () => {
  await forgetConnections(layout.hostAddress);
  await run('nsenter', [`--net=${layout.netnsPath}`, 'conntrack', '--flush']);
});

describe('egress networks', () => {
  const nft = (rules: string) => run('nft', [rules]);

  it("egress networks: what the operator denies and the node's own addresses stay closed to a list that has them", async () => {
    // Each part fails without its networks among the denied ones; the second also needs the chain from_hosts to be absent.
    const foreign = `other_${site}`;
    const all = to('203.0.113.0/24');
    await network.connect(layout, ports(0), all, undefined);
    expect(await connection(guest, one, 7).works()).toBe(true);
    expect(await connection(guest, denied, 7).works()).toBe(false);
    // Another installation on this node publishes a port of its host.
    await nft(`table inet ${foreign} { chain prerouting { type nat hook prerouting priority dstnat;
      fib daddr type local tcp dport 7 dnat ip to ${one}
      }
    }`);
    try {
      expect(await connection(guest, node, 7).works()).toBe(false);
      // Without its own rules, as after a flush, the host is still kept from the node.
      await inHost('insert', 'rule', 'inet', 'berth', 'destinations', 'accept');
      expect(await connection(guest, node, 7).works()).toBe(false);
    } finally {
      await nft(`delete table inet ${foreign}`);
    }
  });

  it('egress networks: IP protocols other than TCP, UDP and ICMP are dropped and counted', async () => {
    // Fails without the rules for protocols: all 12 reached the outside.
    await network.connect(layout, ports(0), to('203.0.113.0/24'), ports(0));
    const table = `probe_${site}`;
    const count = async () =>
      Number(/packets (\d+)/.exec((await run('nft', ['list', 'table', 'ip', table])).stdout)?.[1]);
    await nft(`table ip ${table} { chain out { type filter hook postrouting priority 300;
      oifname ${outsideLink} meta l4proto != { tcp, udp, icmp } counter
      }
    }`);
    try {
      await run('nsenter', [
        `--net=/run/netns/${guest}`,
        ...['perl', '-MSocket', '-e'],
        `for my $protocol (4, 41, 47, 50, 89, 112) { for (1 .. 2) {
           socket(my $s, PF_INET, SOCK_RAW, $protocol) or die $!;
           send($s, 'x' x 40, 0, sockaddr_in(0, inet_aton('${one}'))) or die $! } }`,
      ]);
      await eventually('all are counted', async () => (await dropped('protocol')) >= 12);
      expect(await count()).toBe(0);
    } finally {
      await nft(`delete table ip ${table}`);
    }
  });
});

describe("the node's connection tracking table", () => {
  const udp = (namespace: string, script: string) =>
    run('nsenter', [
      `--net=/run/netns/${namespace}`,
      ...['perl', '-MSocket', '-e'],
      `sub udp { my ($port, $to, $at) = @_; socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!;
         bind($s, sockaddr_in($port, INADDR_ANY)) or die $!;
         send($s, 'x', 0, sockaddr_in($at, inet_aton($to))); close $s } ${script}`,
    ]);
  const entries = async (side: 'orig-src' | 'reply-src', address: string) =>
    (await run('conntrack', ['--dump', '--family', 'ipv4', `--${side}`, address])).stdout
      .split('\n')
      .filter(Boolean);

  it('connection tracking: a closed connection leaves the tables after seconds, not minutes', async () => {
    // Fails without `ct timeout` in the node's table, or in the namespace's: about 119 s each.
    await network.connect(layout, ports(1), to(`${one}/32`), undefined);
    for (const [namespace, address, port] of [
      [guest, one, 7],
      [outside, node, firstPort],
    ] as const) {
      const { stdin, exitCode } = busybox(namespace, 'nc', '-w', '3', address, String(port));
      expect(exitCode).toBeNull();
      stdin.end('x');
    }
    const closed = async () =>
      [
        ...(await entries('orig-src', layout.hostAddress)),
        ...(await entries('reply-src', layout.hostAddress)),
        ...(await run('nsenter', [`--net=${layout.netnsPath}`, 'conntrack', '--dump'])).stdout.split('\n'),
      ].filter((line) => line.includes('TIME_WAIT'));
    await eventually('both connections are closed in both tables', async () => (await closed()).length >= 4);
    const seconds = (await closed()).map((line) => Number(/^tcp\s+6 (\d+)/.exec(line)?.[1]));
    expect(Math.max(...seconds)).toBeLessThanOrEqual(10);
  });

  // Fails if streams to the engine have the short timeouts: the namespace forgot it, and reset what the guest sent.
  it('connection tracking: a half-closed stream to the engine whose FIN was lost once still gets a late answer', async () => {
    await network.connect(layout, ports(0), { kind: 'none' }, undefined);
    const socket = connect({ host: layout.hostAddress, port: enginePort, allowHalfOpen: true });
    let heard = '';
    let isOver = false;
    socket.on('data', (chunk) => (heard += chunk.toString()));
    socket.on('error', (error) => (heard += error.message)).once('close', () => (isOver = true));
    socket.write('later\n');
    await eventually('the guest has the connection', () => Promise.resolve(heard === 'later\n'));

    const isInState = async (state: string) =>
      (await run('nsenter', [`--net=${layout.netnsPath}`, 'conntrack', '--dump'])).stdout.includes(state);
    const inGuest = (command: string) => run('nsenter', [`--net=/run/netns/${guest}`, 'nft', command]);
    await inGuest('add table ip loss');
    await inGuest('add chain ip loss everything { type filter hook prerouting priority -300; policy drop; }');
    socket.end();
    await eventually('the FIN was sent twice', () => isInState('LAST_ACK'));
    await inGuest('delete table ip loss');
    await eventually('the namespace takes it for closed', () => isInState('TIME_WAIT'));
    await eventually('the connection ends', () => Promise.resolve(isOver), { deadlineMs: 60_000 });
    expect(heard).toBe('later\nlate\n');
  });

  it('connection tracking: the node itself limits the connections that a host opens', async () => {
    // Fails without `ct count` in the node's chain `opened`: 400 entries.
    await network.connect(layout, ports(0), to(`${one}/32`), undefined);
    await inHost('insert', 'rule', 'inet', 'berth', 'egress', 'accept');
    await udp(guest, `udp($_, '${one}', 9) for 20000 .. 20399;`);
    const open = await entries('orig-src', layout.hostAddress);
    expect(open.length).toBeLessThanOrEqual(options.hostLimits.connections);
    expect(open.length).toBeGreaterThan(10);
  });

  it('connection tracking: the node itself limits the connections to the ports of a host', async () => {
    // Fails without the limits in the node's chain `received`: 400 entries.
    await network.connect(layout, ports(1), { kind: 'none' }, undefined);
    await udp(outside, `udp($_, '${node}', ${firstPort}) for 20000 .. 20399;`);
    const open = await entries('reply-src', layout.hostAddress);
    expect(open.length).toBeLessThanOrEqual(options.hostLimits.connections + 10);
    expect(open.length).toBeGreaterThan(10);
  });

  it("connection tracking: nothing of a deleted host is left, so old clients don't reach the next one", async () => {
    // Fails without forgetConnections: the entry translated further datagrams to the address of the next host.
    const next = layoutOf(options, 'next', 2);
    const block = { first: firstPort + 50, count: 1 };
    await network.make(next);
    await network.connect(next, block, { kind: 'none' }, undefined);
    await udp(outside, `udp(20500, '${node}', ${block.first}) for 1 .. 3;`);
    expect(await entries('reply-src', next.hostAddress)).toHaveLength(1);
    await network.destroy(next, block);
    expect(await entries('reply-src', next.hostAddress)).toEqual([]);
  });
});

describe('network facts', () => {
  it('network facts: links, addresses, routes and settings follow from the layout, and each change is found', async () => {
    // Each line fails without its part of readNetwork.
    await network.connect(layout, ports(0), { kind: 'none' }, undefined);
    expect((await network.facts(layout)).network).toEqual(expectedNetwork(layout));
    const inside = ['nsenter', `--net=${layout.netnsPath}`];
    const set = (file: string, value: number) => `echo ${value} > /proc/sys/net/${file}`;
    for (const [undo, change, line] of [
      [
        set('ipv4/conf/tap0/rp_filter', 1),
        set('ipv4/conf/tap0/rp_filter', 0),
        'setting ipv4/conf/tap0/rp_filter is 0',
      ],
      [
        set('ipv4/conf/all/route_localnet', 0),
        set('ipv4/conf/all/route_localnet', 1),
        'setting ipv4/conf/all/route_localnet is 1',
      ],
      [
        set('ipv6/conf/uplink/disable_ipv6', 1),
        set('ipv6/conf/uplink/disable_ipv6', 0),
        'setting ipv6/conf/uplink/disable_ipv6 is 0',
      ],
      [
        'ip address delete 10.9.9.9/32 dev tap0',
        'ip address add 10.9.9.9/32 dev tap0',
        'address 10.9.9.9/32 on tap0',
      ],
      ['ip link delete extra', 'ip link add extra type veth peer name more', 'link extra (down)'],
      [
        'ip route delete 10.9.9.0/24',
        `ip route add 10.9.9.0/24 via ${guestLink.guestAddress}`,
        `route 10.9.9.0/24 via ${guestLink.guestAddress} on tap0`,
      ],
      ['ip rule delete priority 5', 'ip rule add priority 5 lookup 77', 'rule 5 to table 77'],
    ] as const) {
      const sh = (command: string) => run(inside[0] ?? '', [...inside.slice(1), 'sh', '-c', command]);
      await sh(change);
      expect((await network.facts(layout)).network).toContain(line);
      await sh(undo);
    }
    const nodeFile = `/proc/sys/net/ipv4/conf/${layout.veth}/rp_filter`;
    await run('sh', ['-c', `echo 0 > ${nodeFile}`]);
    expect((await network.facts(layout)).network).toContain(
      `setting rp_filter of the node's ${layout.veth} is 0`,
    );
    await run('sh', ['-c', `echo 1 > ${nodeFile}`]);
    expect((await network.facts(layout)).network).toEqual(expectedNetwork(layout));
  });

  it('network facts: a rule that is removed and put back has another handle', async () => {
    // Fails without handles: the rules are the same.
    await network.connect(layout, ports(0), { kind: 'none' }, undefined);
    const before = await network.facts(layout);
    const { stdout } = await inHost('--handle', 'list', 'chain', 'inet', 'berth', 'egress');
    const [, handle = ''] = /jump destinations # handle (\d+)/.exec(stdout) ?? [];
    await inHost('delete', 'rule', 'inet', 'berth', 'egress', 'handle', handle);
    await inHost('add', 'rule', 'inet', 'berth', 'egress', 'jump', 'destinations');
    const after = await network.facts(layout);
    expect(after.firewall).toEqual(before.firewall);
    expect(after['rule handles']).not.toEqual(before['rule handles']);
  });
});
