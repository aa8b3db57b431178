import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Egress, PortBlock } from '../../../../src/core/hypervisor/host-spec.ts';
import { guestLink } from '../../../../src/guest/link.ts';
import { createHostNetworking } from '../../../../src/hypervisors/qemu/network/network.ts';
import { layoutOf } from '../../../../src/hypervisors/qemu/layout.ts';
import { tap } from '../../../../src/hypervisors/qemu/names.ts';
import { eventually } from '../../../support/eventually.ts';
import { testSlot } from '../../../support/test-slot.ts';

/**
 * A host's network with a namespace instead of a guest, so that no VM has to boot. The subject is what happens to open
 * connections when rules change.
 *
 * Each test fails with `ct state established,related accept` in rules.ts: open connections continued.
 */
const site = randomBytes(2).toString('hex');
const options = {
  site,
  stateDirectory: '/nonexistent',
  runDirectory: `/run/berth-${site}`,
  hostNetwork: `10.213.${testSlot}.0/24`,
  firstUid: 1,
  gatewayUid: 1,
  dnsServers: [],
  hostLimits: { connections: 100, bandwidthMbit: 1000 },
};
const layout = layoutOf(options, 'guest', 1);
const network = createHostNetworking(options);
const guest = `berth-${site}-guest`;
const outside = `berth-${site}-outside`;
const outsideLink = `bo${site}`;
/** The node's address on the outside link, and two addresses of an outside peer (RFC 5737). */
const [node, one, other] = [1, 2, 3].map((last) => `203.0.113.${testSlot * 8 + last}`) as [
  string,
  string,
  string,
];
const firstPort = 19_000 + testSlot * 100;
const ports = (count: number): PortBlock => ({ first: firstPort, count });
const to = (...cidrs: string[]): Egress => ({ kind: 'networks', cidrs });

const run = promisify(execFile);
const started: ChildProcessWithoutNullStreams[] = [];
const busybox = (namespace: string, ...args: string[]) => {
  const child = spawn('nsenter', [`--net=/run/netns/${namespace}`, '/bin/busybox', ...args]);
  started.push(child);
  return child;
};

/** An echo server. */
async function echo(namespace: string, port: number): Promise<void> {
  busybox(namespace, 'nc', '-ll', '-p', String(port), '-e', '/bin/cat');
  await eventually('the server listens', async () =>
    (await run('nsenter', [`--net=/run/netns/${namespace}`, 'ss', '-ltnH'])).stdout.includes(`:${port} `),
  );
}

/** An open connection to an echo server. */
function connection(namespace: string, address: string, port: number) {
  const child = busybox(namespace, 'nc', '-w', '3', address, String(port));
  let heard = '';
  let isOver = false;
  child.stdout.on('data', (chunk: Buffer) => (heard += chunk.toString()));
  child.stdin.on('error', () => undefined);
  child.once('close', () => (isOver = true));
  let count = 0;
  return {
    /** Whether data sent now is echoed before the connection ends. */
    async works(): Promise<boolean> {
      count += 1;
      const word = `word ${count}\n`;
      child.stdin.write(word);
      await eventually('an answer or the end', () => Promise.resolve(isOver || heard.includes(word)));
      return heard.includes(word);
    },
  };
}

beforeAll(async () => {
  await network.open();
  await network.make(layout);
  const inHost = ['-netns', layout.netns];
  for (const command of [
    [...inHost, 'link', 'delete', tap],
    ['netns', 'add', guest],
    ['netns', 'add', outside],
    [...inHost, 'link', 'add', tap, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', guest],
    [...inHost, 'link', 'set', tap, 'address', guestLink.gatewayMac],
    [...inHost, 'address', 'add', `${guestLink.gatewayAddress}/30`, 'dev', tap],
    [...inHost, 'link', 'set', tap, 'up'],
    [...inHost, 'neighbour', 'replace', guestLink.guestAddress, 'lladdr', guestLink.guestMac, 'dev', tap],
    ['-netns', guest, 'link', 'set', 'eth0', 'address', guestLink.guestMac],
    ['-netns', guest, 'address', 'add', `${guestLink.guestAddress}/30`, 'dev', 'eth0'],
    ['-netns', guest, 'link', 'set', 'eth0', 'up'],
    [
      '-netns',
      guest,
      'neighbour',
      'replace',
      guestLink.gatewayAddress,
      'lladdr',
      guestLink.gatewayMac,
      'dev',
      'eth0',
    ],
    ['-netns', guest, 'route', 'add', 'default', 'via', guestLink.gatewayAddress],
    ['link', 'add', outsideLink, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', outside],
    ['address', 'add', `${node}/29`, 'dev', outsideLink],
    ['link', 'set', outsideLink, 'up'],
    ['-netns', outside, 'address', 'add', `${one}/29`, 'dev', 'eth0'],
    ['-netns', outside, 'address', 'add', `${other}/29`, 'dev', 'eth0'],
    ['-netns', outside, 'link', 'set', 'eth0', 'up'],
    ['-netns', outside, 'link', 'set', 'lo', 'up'],
  ]) {
    await run('ip', command);
  }
  await echo(outside, 7);
  await echo(guest, firstPort);
  await echo(guest, firstPort + 2);
}, 60_000);

afterAll(async () => {
  for (const child of started) child.kill('SIGKILL');
  await network.destroy(layout, undefined);
  for (const namespace of [guest, outside]) {
    // Each connection to the echo server has a process, which does not end with the server.
    const { stdout } = await run('ip', ['netns', 'pids', namespace]);
    for (const pid of stdout.split('\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL');
    await run('ip', ['netns', 'delete', namespace]);
  }
  await run('ip', ['link', 'delete', outsideLink]).catch(() => undefined);
  await run('nft', ['delete', 'table', 'inet', `berth_${site}`]);
});

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
    const { 'node firewall': left } = await network.facts(layout);
    expect(left.filter((line) => line.startsWith('published'))).toEqual([]);
  });

  it('published ports: lead nowhere after the host is disconnected', async () => {
    await network.connect(layout, ports(3), { kind: 'none' }, undefined);
    const open = connection(outside, node, firstPort);
    expect(await open.works()).toBe(true);
    await network.disconnect(layout, undefined);
    expect(await open.works()).toBe(false);
  });
});

/** Each test fails with the former rules: foreign rules stayed and were recorded as ours. */
describe('foreign rules', () => {
  const table = `berth_${site}`;
  const nft = (...args: string[]) => run('nft', args);
  const inHost = (...args: string[]) => run('nsenter', [`--net=${layout.netnsPath}`, 'nft', ...args]);
  const listing = async () =>
    (await nft('list', 'table', 'inet', table)).stdout + (await inHost('list', 'ruleset')).stdout;

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

  it("foreign rules: are removed from the node's table when it is applied and when a host is connected, and reported", async () => {
    await network.connect(layout, ports(1), { kind: 'none' }, undefined);
    const before = await network.facts(layout);
    await nft('add', 'chain', 'inet', table, 'intruder', '{ type filter hook forward priority -10; }');
    await nft('add', 'rule', 'inet', table, 'intruder', 'accept');
    expect(await network.open()).toEqual(['intruder']);
    expect(await network.facts(layout)).toEqual(before);

    await nft('insert', 'rule', 'inet', table, 'forward', 'ip', 'daddr', '192.0.2.1', 'accept');
    expect(await listing()).toContain('192.0.2.1');
    expect(await network.connect(layout, ports(1), { kind: 'none' }, ports(1))).toEqual(before);
    expect(await listing()).not.toContain('192.0.2.1');
    await network.disconnect(layout, ports(1));
  });
});
