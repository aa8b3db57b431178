import { execFile } from 'node:child_process';
import { createServer, type Server } from 'node:net';
import { networkInterfaces } from 'node:os';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOutsidePeer, type OutsidePeer } from '../../tools/lib/outside-peer.ts';
import { nodeAddress } from '../../src/config/defaults.ts';
import { guestLink } from '../../src/guest/link.ts';
import { tap } from '../../src/hypervisors/qemu/names.ts';
import { eventually } from '../support/eventually.ts';
import { testSlot } from '../support/test-slot.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

const execute = promisify(execFile);

/** A limit low enough for a test to reach. */
const connections = 64;

/** What a tenant that is root in its guest can reach. Numbers refer to the rows in SECURITY.md. */
describe('network isolation', { timeout: 960_000 }, () => {
  let hosts: TestHosts;
  let outside: OutsidePeer;
  let a: TestHost;
  let b: TestHost;
  const servers: Server[] = [];
  const heard: string[] = [];
  const node = nodeAddress();
  const openPort = 19_900 + testSlot;

  beforeAll(async () => {
    outside = await createOutsidePeer();
    hosts = await makeHosts({ options: { hostLimits: { connections, bandwidthMbit: 1000 } } });
    // The widest egress that an operator can configure: all private networks and the internet. Everything else is closed.
    [a, b] = await Promise.all([
      hosts.make({ egress: { kind: 'networks', cidrs: ['0.0.0.0/0'] } }),
      hosts.make({ egress: { kind: 'internet' } }),
    ]);
    for (const address of ['0.0.0.0', '::']) {
      const server = createServer((socket) => {
        heard.push(`${socket.remoteAddress ?? ''} on ${address}`);
        socket.end('reached\n');
      });
      // An existing listener on :: accepts both families.
      await new Promise<void>((resolve) => {
        server.once('error', () => {
          resolve();
        });
        server.listen({ port: openPort, host: address, ipv6Only: address === '::' }, resolve);
      });
      servers.push(server);
    }
    outside.start('/bin/busybox', 'httpd', '-f', '-p', '7000', '-h', '/usr/share/common-licenses');
  }, 1_200_000);

  afterAll(async () => {
    for (const server of servers) server.close();
    await hosts.close();
    await outside.remove();
  }, 300_000);

  /** Which of these addresses and ports answer; all are tried concurrently. */
  const reach = async (from: TestHost, targets: readonly string[]) => {
    const attempts = targets.map((target) => {
      const at = target.lastIndexOf(' ');
      const [address, port] = [target.slice(0, at), target.slice(at + 1)];
      return `(echo | busybox nc -w 4 ${address} ${port} >/dev/null 2>&1 && echo "open: ${target}") &`;
    });
    const printed = await (await from.attacker()).root(`${attempts.join('\n')}\nwait; echo end`);
    expect(printed).toContain('end');
    return [...printed.matchAll(/open: (.*)/g)].map(([, target]) => target);
  };

  const entries = async (host: TestHost) =>
    Number(await host.inNamespace('cat', '/proc/sys/net/netfilter/nf_conntrack_count'));

  it('1 and 3: network: a guest reaches neither the node and its listeners nor other hosts', async () => {
    // Fails without the drops in the egress chain and in the node's input and forward chains (host-rules.ts, node-rules.ts).
    const nodeAddresses = [node, a.layout.nodeAddress, b.layout.nodeAddress];
    const forbidden = [
      ...[...nodeAddresses, guestLink.gatewayAddress].flatMap((address) =>
        [openPort, 22, 5432].map((port) => `${address} ${port}`),
      ),
      `${b.layout.hostAddress} 2375`,
      `${b.layout.hostAddress} ${b.spec.publishedPorts.first}`,
      // By the ports published on the node.
      `${node} ${b.spec.publishedPorts.first}`,
      '169.254.169.254 80',
      '127.0.0.1 5432',
    ];
    const open = await reach(a, [...forbidden, `${outside.internetAddress} 7000`]);
    // Allowed targets answer, so unreachable ones are refused and not broken.
    expect(open).toEqual([`${outside.internetAddress} 7000`]);
    expect(heard).toEqual([]);
    expect((await a.dropped())['refused']).toBeGreaterThan(0);
  });

  it('2: network: private and link-local networks are closed although the internet is open', async () => {
    // Fails without the drop before the `accept` of `internet`: the node's network was open.
    const open = await reach(b, [
      `${outside.localAddress} 7000`,
      ...['10.0.0.1 80', '172.16.0.1 80', '192.168.0.1 80', '100.64.0.1 80', '169.254.169.254 80'],
      `${outside.internetAddress} 7000`,
    ]);
    expect(open).toEqual([`${outside.internetAddress} 7000`]);
    // A network that the operator allows is reachable.
    expect(await reach(a, [`${outside.localAddress} 7000`])).toHaveLength(1);
  });

  it('3: network: UDP packets to another host do not reach its guest', async () => {
    // Fails without the addresses that are always denied and without the drops in the node's forward chain: two arrived.
    await b.inNamespace(
      'nft',
      `add table ip probe
       add chain ip probe out { type filter hook postrouting priority 300; }
       add rule ip probe out oifname ${tap} meta l4proto udp counter`,
    );
    const attacker = await a.attacker();
    const ports = [9, 2375, b.spec.publishedPorts.first];
    const targets = [b.layout.hostAddress, b.layout.nodeAddress, guestLink.guestAddress, node];
    const printed = await attacker.perl(`
      use Socket; my $sent = 0;
      socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!; setsockopt($s, SOL_SOCKET, SO_BROADCAST, 1);
      for my $to (qw(${targets.join(' ')} 255.255.255.255 224.0.0.1)) { for my $port (${ports.join(', ')}) {
        $sent++ if send($s, 'x', 0, sockaddr_in($port, inet_aton($to))) } }
      print "sent $sent\\n";`);
    expect(printed).toMatch(/^sent \d+/);
    expect(Number(/\d+/.exec(printed)?.[0])).toBeGreaterThan(10);
    expect(await b.inNamespace('nft', 'list', 'table', 'ip', 'probe')).toContain('counter packets 0 ');
    await b.inNamespace('nft', 'delete', 'table', 'ip', 'probe');
  });

  it('1 and 3: network: nothing answers ICMP, ARP or IPv6', async () => {
    // Fails with `policy accept` for input and output of the namespace (both hosts' addresses answered), and without the
    // rule for IPv6 (its counter stayed 0).
    const nodeAddresses6 = Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .filter(({ internal, family }) => !internal && family === 'IPv6')
      .map(({ address }) => address);
    const before = await a.dropped();
    const attacker = await a.attacker();
    const printed = await attacker.root(`
      echo 0 > /host/proc/sys/net/ipv6/conf/eth0/disable_ipv6
      busybox ip -6 address add fd00:be::2/64 dev eth0; busybox ip -6 route add default via fd00:be::1 dev eth0
      for to in ${guestLink.gatewayAddress} ${a.layout.nodeAddress} ${b.layout.hostAddress} ${node}; do
        busybox ping -c 1 -W 2 $to >/dev/null 2>&1 && echo "answered: $to" &
      done
      for to in fd00:be::1 ${nodeAddresses6.join(' ')}; do
        (echo | busybox nc -w 3 $to ${openPort} >/dev/null 2>&1 && echo "answered: $to") &
      done
      busybox ping6 -c 1 -W 2 fd00:be::1 >/dev/null 2>&1 && echo "answered: fd00:be::1" &
      busybox arping -c 2 -w 2 -I eth0 ${guestLink.gatewayAddress} 2>&1 | busybox grep -q 'reply from' && echo "answered: arp" &
      wait; echo end`);
    expect([...printed.matchAll(/answered: .*/g)].map(([line]) => line)).toEqual([]);
    expect(printed).toContain('end');
    const after = await a.dropped();
    expect(after['arp'] ?? 0).toBeGreaterThan(before['arp'] ?? 0);
    expect(after['ipv6'] ?? 0).toBeGreaterThan(before['ipv6'] ?? 0);
  });

  it('4: network: spoofed frames, DHCP offers and router advertisements are dropped and counted', async () => {
    // Fails without the rules for MAC address, IP address and DHCP: their counters stayed 0.
    const before = await a.dropped();
    const attacker = await a.attacker();
    const printed = await attacker.perl(frames(a));
    expect(printed.trim()).toBe('sent 40');
    const after = await a.dropped();
    const more = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
    expect({
      mac: more('foreign_mac'),
      address: more('foreign_address'),
      dhcp: more('dhcp'),
      rest: more('not_ip'),
    }).toEqual({ mac: 10, address: 10, dhcp: 10, rest: 0 });
    expect(more('ipv6')).toBeGreaterThanOrEqual(10);
  });

  it("12: network: a flood of connections stops at its host's limit, and other hosts are unaffected", async () => {
    // Fails without `ct count over …`: 423 entries were left.
    const attacker = await a.attacker();
    const printed = await attacker.perl(`
      use Socket; my $to = sockaddr_in(9, inet_aton("${outside.internetAddress}"));
      for my $port (20000 .. 20399) {
        socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!; bind($s, sockaddr_in($port, INADDR_ANY)) or next;
        send($s, "x", 0, $to); close $s;
      }
      print "sent\\n";`);
    expect(printed.trim()).toBe('sent');
    // The gateway's connections to the engine do not count.
    expect(await entries(a)).toBeLessThan(connections + 32);
    expect((await a.dropped())['connections']).toBeGreaterThan(200);
    expect(await reach(b, [`${outside.internetAddress} 7000`])).toHaveLength(1);
  });

  it('12: network: a published port accepts UDP, and a flood into it stops at the limit', async () => {
    // Fails without the limits in the chains `received` of the node and `ingress` of the namespace: 412 entries were left.
    const port = b.spec.publishedPorts.first;
    const outsidePerl = (script: string) => outside.run('perl', '-e', `use Socket; ${script}`);
    const to = `sockaddr_in(${port}, inet_aton("${outside.nodeAddress}"))`;
    const guest = (await b.attacker()).perl(`
      use Socket; socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!; bind($s, sockaddr_in(${port}, INADDR_ANY)) or die $!;
      while (my $from = recv($s, my $what, 100, 0)) { send($s, "heard $what", 0, $from); last if $what eq 'end' }`);
    const say = (what: string) =>
      outsidePerl(`socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!; send($s, "${what}", 0, ${to});
        vec(my $in = '', fileno $s, 1) = 1; if (select($in, undef, undef, 1)) { recv($s, my $a, 100, 0); print $a }`);
    await eventually('the guest answers', async () => (await say('hello')) === 'heard hello');
    expect(await say('end')).toBe('heard end');
    await guest;
    const flood = await outsidePerl(`
      for my $port (20000 .. 20399) {
        socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!; bind($s, sockaddr_in($port, INADDR_ANY)) or next;
        send($s, "x", 0, ${to}); close $s;
      }
      print "sent";`);
    expect(flood).toBe('sent');
    expect(await entries(b)).toBeLessThan(connections + 32);
    // The node drops them before they reach the host's namespace.
    const { stdout } = await execute('nft', [
      'list',
      'chain',
      'inet',
      `berth_${hosts.options.site}`,
      'received',
    ]);
    const counts = [...stdout.matchAll(/counter packets (\d+)/g)].map(([, count]) => Number(count));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(200);
    // Open connections continue, including those to the engine.
    expect(await hosts.driver.engineAnswers(b.spec)).toBe(true);
  });
});

/** A perl script that sends ten raw frames of each kind, past the guest's network stack. */
function frames(host: TestHost): string {
  const hex = (mac: string) => mac.replaceAll(':', '');
  const [to, own] = [hex(guestLink.gatewayMac), hex(guestLink.guestMac)];
  return `
    use Socket;
    socket(my $s, 17, 3, 0x0300) or die "socket: $!";
    open(my $index, '<', '/sys/class/net/eth0/ifindex') or die $!;
    my $address = pack('S n i S C C a8', 17, 3, <$index>, 0, 0, 6, pack('H12', '${to}'));
    sub ip { my ($from, $to, $protocol, $payload) = @_;
      my $header = pack('C C n n n C C n a4 a4', 0x45, 0, 20 + length $payload, 1, 0, 64, $protocol, 0, inet_aton($from), inet_aton($to));
      my $sum = 0; $sum += $_ for unpack('n*', $header); $sum = ($sum & 0xffff) + ($sum >> 16) for 1 .. 2;
      substr($header, 10, 2) = pack('n', ~$sum & 0xffff); return $header . $payload; }
    sub udp { my ($from, $to, $payload) = @_; return pack('n n n n', $from, $to, 8 + length $payload, 0) . $payload; }
    sub frame { my ($source, $type, $payload) = @_;
      return pack('H12 H12 n', '${to}', $source, $type) . $payload . ("\\0" x 20); }
    my @frames = (
      frame('525400be2799', 0x0800, ip('${guestLink.guestAddress}', '203.0.113.1', 17, udp(5000, 9, 'x'))),
      frame('${own}', 0x0800, ip('${host.layout.nodeAddress}', '203.0.113.1', 17, udp(5000, 9, 'x'))),
      frame('${own}', 0x0800, ip('${guestLink.guestAddress}', '255.255.255.255', 17, udp(67, 68, 'offer'))),
      frame('${own}', 0x86dd, pack('H*', '6000000000203aff' . 'fe80000000000000000000000000dead' . 'ff020000000000000000000000000001' . '8600000040000708' . '0' x 48)),
    );
    my $sent = 0;
    for (1 .. 10) { for my $frame (@frames) { $sent++ if send($s, $frame, 0, $address) } }
    print "sent $sent\\n";`;
}
