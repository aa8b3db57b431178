import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOutsidePeer, type OutsidePeer } from '../../tools/lib/outside-peer.ts';
import { tap, uplink } from '../../src/hypervisors/qemu/names.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

/** A limit so low that even an emulated guest can exceed it. */
const bandwidthMbit = 2;
const bytesPerSecond = bandwidthMbit * 125_000;
/** Allowed burst: the kernel's token bucket has one second's worth plus the burst of host-rules.ts, a quarter more. */
const bucket = 1.25 * bytesPerSecond;
/** Tolerance for link headers, which are counted only here, and for the time between two readings. */
const tolerance = 1.05;
/** Datagrams of 1400 bytes: 28 MB in all, far more than the burst. */
const datagrams = 20_000;
/** Of the disk; a guest may exceed it twice for a few seconds. */
const diskRate = { mibPerSecond: 2, iops: 1_000 };
const mostPerSecond = 2 * diskRate.mibPerSecond * 1024 ** 2;
/** Writes 24 MiB and syncs each MiB, always to the same place. */
const writeAndSync = `
  open(my $file, '>', '/var/fill') or die $!; select($file); $| = 1; select(STDOUT); my $data = pack('C*', map { $_ % 251 } 1 .. 1048576);
  for (1 .. 24) { sysseek $file, 0, 0; syswrite($file, $data) == 1048576 or die $!; system('/bin/sync', '-d', '/var/fill') == 0 or die }
  unlink '/var/fill'; print 'written';`;
const flood = (address: string, port: number) => `
  use Socket; my $to = sockaddr_in(${port}, inet_aton('${address}')); my $data = 'x' x 1400;
  socket(my $s, PF_INET, SOCK_DGRAM, 0) or die $!;
  for (1 .. ${datagrams}) { send($s, $data, 0, $to) } print "sent\\n";`;

/**
 * No host gets more of the node's network than its limit, in either direction. The bytes that pass are compared with
 * what the limit allows in the elapsed time, so a slow node makes no difference.
 */
describe('host bandwidth', { timeout: 960_000 }, () => {
  let hosts: TestHosts;
  let outside: OutsidePeer;
  let a: TestHost;
  let b: TestHost;

  beforeAll(async () => {
    outside = await createOutsidePeer();
    hosts = await makeHosts({ options: { hostLimits: { connections: 64, bandwidthMbit, disk: diskRate } } });
    [a, b] = await Promise.all([
      hosts.make({ egress: { kind: 'internet' } }),
      hosts.make({ egress: { kind: 'internet' } }),
    ]);
  }, 1_200_000);
  afterAll(async () => {
    await hosts.close();
    await outside.remove();
  }, 300_000);

  /** Bytes that one of the host's links has forwarded. */
  const sentOn = async (host: TestHost, link: string): Promise<number> => {
    const printed = await host.inNamespace('ip', '-json', '-statistics', 'link', 'show', link);
    const [shown] = JSON.parse(printed) as { stats64: { tx: { bytes: number } } }[];
    return shown?.stats64.tx.bytes ?? Number.NaN;
  };

  /** Bytes that pass over a link of A during `act`, as a share of what the limit allows in that time. */
  async function shareUsed(link: string, act: () => Promise<unknown>): Promise<number> {
    const before = await sentOn(a, link);
    const begun = performance.now();
    await act();
    const bytes = (await sentOn(a, link)) - before;
    const seconds = (performance.now() - begun) / 1000;
    return bytes / (bucket + seconds * bytesPerSecond);
  }
  const droppedFor = async (host: TestHost) => (await host.dropped())['bandwidth'] ?? 0;

  it('12: bandwidth limit: applies to what a guest sends; the excess is dropped, other hosts lose nothing', async () => {
    // Fails without the limit on the guest's link (host-rules.ts, node-rules.ts): twice the allowed bytes passed.
    const attacker = await a.attacker();
    await b.attacker();
    const [dropped, ofAnother] = [await droppedFor(a), await droppedFor(b)];
    const share = await shareUsed(uplink, () => attacker.perl(flood(outside.internetAddress, 9)));
    expect(share).toBeGreaterThan(0);
    expect(share).toBeLessThan(tolerance);
    expect(await droppedFor(a)).toBeGreaterThan(dropped);
    expect(await droppedFor(b)).toBe(ofAnother);
  });

  it('12: bandwidth limit: applies to what others send to a guest', async () => {
    // Fails without the limit in the forward chain: four times the allowed bytes passed.
    const dropped = await droppedFor(a);
    const send = flood(outside.nodeAddress, a.spec.publishedPorts.first);
    const share = await shareUsed(tap, () => outside.run('/usr/bin/perl', '-e', send));
    expect(share).toBeGreaterThan(0);
    expect(share).toBeLessThan(tolerance);
    expect(await droppedFor(a)).toBeGreaterThan(dropped);
  });

  it('12: disk rate: a restored guest that writes and syncs without end is held to its limit', async () => {
    // Fails without limitDiskRate in vms.ts.
    const attacker = await a.attacker();
    const io = `/proc/${await a.pid()}/io`;
    const written = async () => Number(/^wchar: (\d+)/m.exec(await readFile(io, 'utf8'))?.[1]);
    const before = await written();
    const begun = performance.now();
    expect(await attacker.perl(writeAndSync)).toContain('written');
    const seconds = (performance.now() - begun) / 1000;
    const bytes = (await written()) - before;
    expect(bytes).toBeGreaterThan(24 * 1024 ** 2);
    // A tenth of a second's worth may be ahead of the rate.
    expect(bytes / (mostPerSecond * (seconds + 0.1))).toBeLessThan(tolerance);
  });
});
