import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enginePort } from '../../../../src/core/hypervisor/network.ts';
import { guestLink } from '../../../../src/guest/link.ts';
import {
  connection,
  firstPort,
  guest,
  inHost,
  layout,
  makeNamespaceGuest,
  network,
  newNetwork,
  node,
  one,
  options,
  other,
  outside,
  ports,
  removeNamespaceGuest,
  run,
  site,
  to,
} from '../../../support/namespace-guest.ts';

/**
 * The subject is what happens to open connections when rules change.
 *
 * Each test fails with `ct state established,related accept` in host-rules.ts: open connections continued.
 */
beforeAll(makeNamespaceGuest, 60_000);
afterAll(removeNamespaceGuest);

const table = ['inet', `berth_${site}`];
const publishedPorts = async () => (await run('nft', ['list', 'map', ...table, 'ports'])).stdout;

describe('egress rules', () => {
  it('egress rules: a change keeps open connections that are still allowed and ends all others', async () => {
    await network.connect(layout, ports(0), to(`${one}/32`, `${other}/32`), undefined);
    const stays = connection(guest, one, 7);
    const goes = connection(guest, other, 7);
    expect([await stays.works(), await goes.works()]).toEqual([true, true]);
    // The same rules again, as at a worker's start: no connection ends.
    await network.connect(layout, ports(0), to(`${one}/32`, `${other}/32`), ports(0));
    expect([await stays.works(), await goes.works()]).toEqual([true, true]);

    await network.connect(layout, ports(0), to(`${one}/32`), ports(0));
    expect([await stays.works(), await goes.works()]).toEqual([true, false]);
    expect(await connection(guest, other, 7).works()).toBe(false);
    expect(await connection(guest, one, 7).works()).toBe(true);

    await network.connect(layout, ports(0), { kind: 'none' }, ports(0));
    expect(await stays.works()).toBe(false);
  });
});

describe('published ports', () => {
  it('published ports: adding ports keeps open connections, removing ports ends theirs', async () => {
    await network.connect(layout, ports(1), { kind: 'none' }, undefined);
    const first = connection(outside, node, firstPort);
    expect(await first.works()).toBe(true);
    expect(await connection(outside, node, firstPort + 2).works()).toBe(false);

    await network.connect(layout, ports(4), { kind: 'none' }, ports(1));
    const third = connection(outside, node, firstPort + 2);
    expect([await first.works(), await third.works()]).toEqual([true, true]);

    // Without knowing which ports were published, as after a kill half-way.
    await network.connect(layout, ports(2), { kind: 'none' }, undefined);
    expect([await first.works(), await third.works()]).toEqual([true, false]);
    expect(await connection(outside, node, firstPort + 2).works()).toBe(false);

    await network.connect(layout, ports(0), { kind: 'none' }, ports(2));
    expect(await first.works()).toBe(false);
    expect(await publishedPorts()).not.toContain(layout.hostAddress);
  });

  it("published ports: the host reaches its own by the node's address, and no port beyond them", async () => {
    // Fails without the rule for the guest's own link in the chain prerouting.
    await network.connect(layout, ports(1), { kind: 'none' }, undefined);
    const own = connection(guest, node, firstPort);
    expect(await own.works()).toBe(true);
    expect(await connection(guest, node, firstPort + 2).works()).toBe(false);
    expect(await connection(guest, node, enginePort).works()).toBe(false);

    await network.connect(layout, ports(3), to('0.0.0.0/0'), ports(1));
    expect([await own.works(), await connection(guest, node, firstPort + 2).works()]).toEqual([true, true]);
    await network.connect(layout, ports(0), to('0.0.0.0/0'), ports(3));
    expect([await own.works(), await connection(guest, node, firstPort).works()]).toEqual([false, false]);
  });

  it('published ports: lead nowhere after the host is disconnected', async () => {
    await network.connect(layout, ports(3), { kind: 'none' }, undefined);
    const open = connection(outside, node, firstPort);
    expect(await open.works()).toBe(true);
    await network.disconnect(layout, undefined);
    expect(await open.works()).toBe(false);
  });
});

describe('refused connections', () => {
  it('refused connections: the guest learns at once what it may not open, TCP and UDP, and is told so at a limited rate', async () => {
    // Fails without the answers of the chain `refuse`: timed out.
    await network.connect(layout, ports(0), { kind: 'none' }, undefined);
    const attempt = (script: string) =>
      run('nsenter', [`--net=/run/netns/${guest}`, 'perl', '-MIO::Socket::INET', '-e', script]);
    const tcp = (address: string, port: number) =>
      `IO::Socket::INET->new(PeerAddr => '${address}', PeerPort => ${port}, Timeout => 20) ? print 'open ' : print "$! ";`;
    const targets = [node, one, '10.255.255.1', guestLink.gatewayAddress, layout.nodeAddress];
    const { stdout } = await attempt(targets.map((address) => tcp(address, 22)).join('\n'));
    expect(stdout).toBe('Connection refused '.repeat(targets.length));
    const udp =
      await attempt(`my $s = IO::Socket::INET->new(Proto => 'udp', PeerAddr => '${one}', PeerPort => 9);
      $s->send('x'); $SIG{ALRM} = sub { print 'silent'; exit }; alarm 20; $s->recv(my $answer, 9); print $!`);
    expect(udp.stdout).toBe('Connection refused');
    expect(await connection(outside, node, firstPort).works()).toBe(false);

    const flood = await attempt(`use Socket; my $refused = 0; my @all;
      for (1 .. 1000) { socket(my $s, PF_INET, SOCK_STREAM, 0); $s->blocking(0);
        connect($s, sockaddr_in(9, inet_aton('${guestLink.gatewayAddress}'))); push @all, $s }
      for (@all) { $refused++ if unpack('i', getsockopt($_, SOL_SOCKET, SO_ERROR)) } print $refused`);
    expect(Number(flood.stdout)).toBeGreaterThan(0);
    expect(Number(flood.stdout)).toBeLessThan(900);
  });
});

/** Each test fails with the former rules: foreign rules stayed and were recorded as ours. */
describe('foreign rules', () => {
  const nft = (...args: string[]) => run('nft', args);
  const listing = async () =>
    (await nft('list', 'table', ...table)).stdout + (await inHost('list', 'ruleset')).stdout;

  it("foreign rules: are removed from a host's namespace when its rules are applied, in separate tables too", async () => {
    await inHost('add', 'table', 'inet', 'intruder');
    await inHost('insert', 'rule', 'inet', 'berth', 'output', 'accept');
    await network.connect(layout, ports(0), { kind: 'none' }, undefined);
    const { firewall } = await network.facts(layout);
    expect(await listing()).not.toContain('intruder');
    await network.connect(layout, ports(0), { kind: 'none' }, ports(0));
    expect((await network.facts(layout)).firewall).toEqual(firewall);
    expect(firewall.filter((line) => line.includes('"accept":null')).join('\n')).not.toMatch(
      /"chain":"output","expr":\[\{"accept"/,
    );
  });

  it("foreign rules: are removed from the node's table when it is applied and when it is repaired, and reported", async () => {
    await network.connect(layout, ports(1), { kind: 'none' }, undefined);
    const before = await network.facts(layout);
    await nft('add', 'chain', ...table, 'intruder', '{ type filter hook forward priority -10; }');
    await nft('add', 'rule', ...table, 'intruder', 'accept');
    expect(await network.open()).toEqual(['intruder']);
    expect(await network.facts(layout)).toEqual(before);

    await nft('insert', 'rule', ...table, 'forward', 'ip', 'daddr', '192.0.2.1', 'accept');
    expect(await listing()).toContain('192.0.2.1');
    expect((await network.repairNode()).altered).toEqual([
      expect.stringMatching(/^new: rule .*192\.0\.2\.1/),
    ]);
    expect(await listing()).not.toContain('192.0.2.1');
    expect(await network.facts(layout)).toEqual(before);
    expect((await network.repairNode()).altered).toEqual([]);
    await network.disconnect(layout, ports(1));
  });
});

describe("the node's firewall", () => {
  /** What happens to Berth's table at `nft flush ruleset` and `systemctl reload nftables`. */
  const removeTable = () => run('nft', ['delete', 'table', ...table]);

  it("the node's firewall: is put back after a flush, with the ports that another worker has published", async () => {
    // Fails with published ports remembered in the process: the first worker removed what the second had published.
    await newNetwork().connect(layout, ports(1), { kind: 'none' }, undefined);
    expect((await network.repairNode()).altered).toEqual([]);
    expect(await connection(outside, node, firstPort).works()).toBe(true);

    await removeTable();
    expect(await connection(outside, node, firstPort).works()).toBe(false);
    expect((await network.repairNode()).altered).toEqual([`missing: table ${table.join(' ')}`]);
    expect(await connection(outside, node, firstPort).works()).toBe(true);
    expect((await newNetwork().repairNode()).altered).toEqual([]);

    await removeTable();
    await newNetwork().open();
    const open = connection(outside, node, firstPort);
    expect(await open.works()).toBe(true);
    expect((await network.repairNode()).altered).toEqual([]);
    await network.open();
    expect(await open.works()).toBe(true);
  });

  it("the node's firewall: ports, policies and sets that were changed and a rule that was put back are found and repaired", async () => {
    // Fails for each without its part of `inspect`; the rule without handles, since the rules are the same; policy and set without
    // `delete table`, since rules that are added to them leave both as they are.
    await network.connect(layout, ports(2), { kind: 'none' }, undefined);
    const element = `{ ${firstPort}-${firstPort + 1} : ${layout.hostAddress} }`;
    await run('nft', ['delete', 'element', ...table, 'ports', element]);
    await run('nft', ['add', 'element', ...table, 'ports', `{ ${firstPort + 9} : 10.9.9.9 }`]);
    expect((await network.repairNode()).altered).toEqual([
      expect.stringMatching(/^missing: published .*; new: published /),
    ]);
    expect(await publishedPorts()).toContain(`${firstPort}-${firstPort + 1} : ${layout.hostAddress}`);
    expect(await publishedPorts()).not.toContain('10.9.9.9');

    for (const change of [
      `chain ${table.join(' ')} forward { policy drop; }`,
      `add chain ${table.join(' ')} intruder { type nat hook prerouting priority -110; }`,
      `add set ${table.join(' ')} intruder { type ipv4_addr; }`,
    ]) {
      await run('nft', [change]);
      expect((await network.repairNode()).altered).toEqual([expect.stringMatching(/new: /)]);
      const { stdout } = await run('nft', ['list', 'table', ...table]);
      expect(stdout).not.toMatch(/intruder|policy drop/);
    }

    const { stdout } = await run('nft', ['--handle', 'list', 'chain', ...table, 'postrouting']);
    const [, rule = '', handle = ''] = /^\s+(ip saddr .* masquerade) # handle (\d+)/m.exec(stdout) ?? [];
    await run('nft', [`delete rule ${table.join(' ')} postrouting handle ${handle}`]);
    await run('nft', [`add rule ${table.join(' ')} postrouting ${rule}`]);
    expect((await network.repairNode()).altered).toEqual([expect.stringMatching(/^missing: rule \d+ in /)]);
    expect((await network.repairNode()).altered).toEqual([]);
  });

  it("the node's firewall: chains that another program adds are reported once, and left as they are", async () => {
    // Fails without comparing the chains of other tables.
    const other = `other_${site}`;
    const found = async () =>
      (await network.repairNode()).foreign.filter((line) => line.includes(`table ip ${other}`));
    await run('nft', [
      `table ip ${other} { chain before { type nat hook prerouting priority -110; }; chain empty { }; }`,
    ]);
    try {
      expect(await found()).toEqual([`chain before of table ip ${other}: nat, hook prerouting`]);
      expect(await found()).toEqual([]);
      await run('nft', ['list', 'table', 'ip', other]);
    } finally {
      await run('nft', ['delete', 'table', 'ip', other]);
    }
  });

  it("the node's firewall: only root and the gateway's user reach an engine, also while there is no table", async () => {
    // Fails without the routing rules: every user of the node reached the engine in plain text.
    await network.connect(layout, ports(0), { kind: 'none' }, undefined);
    const answersTo = async (uid: number) => {
      const user = ['--reuid', String(uid), '--clear-groups', '/bin/busybox'];
      const { stdout } = await run('sh', [
        '-c',
        'echo hello | setpriv "$@"',
        'sh',
        ...[...user, 'nc', '-w', '3', layout.hostAddress, String(enginePort)],
      ]).catch((error: unknown) => error as { stdout: string });
      return stdout === 'hello\n';
    };
    const reached = async () => [
      await answersTo(0),
      await answersTo(options.gatewayUid),
      await answersTo(65_534),
    ];
    expect(await reached()).toEqual([true, true, false]);
    await removeTable();
    expect(await reached()).toEqual([true, true, false]);

    // As a program may do that manages all routing rules.
    for (const priority of ['9', '9', '10']) {
      await run('ip', ['rule', 'delete', 'priority', priority, 'to', options.hostNetwork]);
    }
    expect(await answersTo(65_534)).toBe(true);
    expect((await network.repairNode()).altered).toHaveLength(4);
    expect(await reached()).toEqual([true, true, false]);
  });
});
