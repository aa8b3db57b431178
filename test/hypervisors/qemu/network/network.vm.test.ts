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
 * A host's network with a namespace in the place of its guest, so that no machine has to boot: what is open when
 * its rules change is what matters here.
 *
 * Each was seen to fail with `ct state established,related accept` in rules.ts: what was open went on.
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
const place = layoutOf(options, 'guest', 1);
const network = createHostNetworking(options);
const guest = `berth-${site}-guest`;
const outside = `berth-${site}-outside`;
const outsideLink = `bo${site}`;
/** This machine's address on the link to the outside, and two that somebody outside has (RFC 5737). */
const [machine, one, other] = [1, 2, 3].map((last) => `203.0.113.${testSlot * 8 + last}`) as [
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

/** A server that says what it hears. */
async function echo(namespace: string, port: number): Promise<void> {
  busybox(namespace, 'nc', '-ll', '-p', String(port), '-e', '/bin/cat');
  await eventually('the server listens', async () =>
    (await run('nsenter', [`--net=/run/netns/${namespace}`, 'ss', '-ltnH'])).stdout.includes(`:${port} `),
  );
}

/** An open connection to a server that says what it hears. */
function connection(namespace: string, address: string, port: number) {
  const child = busybox(namespace, 'nc', '-w', '3', address, String(port));
  let heard = '';
  let isOver = false;
  child.stdout.on('data', (chunk: Buffer) => (heard += chunk.toString()));
  child.stdin.on('error', () => undefined);
  child.once('close', () => (isOver = true));
  let count = 0;
  return {
    /** Whether what is said now is heard again, before the connection ends. */
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
  await network.make(place);
  const inHost = ['-netns', place.netns];
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
    ['address', 'add', `${machine}/29`, 'dev', outsideLink],
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
  await network.destroy(place, undefined);
  for (const namespace of [guest, outside]) await run('ip', ['netns', 'delete', namespace]);
  await run('ip', ['link', 'delete', outsideLink]).catch(() => undefined);
  await run('nft', ['delete', 'table', 'inet', `berth_${site}`]);
});

describe('where a guest may open connections to', () => {
  it('is changed under open ones: what it still may lives on, all else ends', async () => {
    await network.connect(place, ports(0), to(`${one}/32`, `${other}/32`), undefined);
    const stays = connection(guest, one, 7);
    const goes = connection(guest, other, 7);
    expect([await stays.works(), await goes.works()]).toEqual([true, true]);
    // The same again, as by a worker that starts: nothing ends.
    await network.connect(place, ports(0), to(`${one}/32`, `${other}/32`), ports(0));
    expect([await stays.works(), await goes.works()]).toEqual([true, true]);

    await network.connect(place, ports(0), to(`${one}/32`), ports(0));
    expect([await stays.works(), await goes.works()]).toEqual([true, false]);
    expect(await connection(guest, other, 7).works()).toBe(false);
    expect(await connection(guest, one, 7).works()).toBe(true);

    await network.connect(place, ports(0), { kind: 'none' }, ports(0));
    expect(await stays.works()).toBe(false);
  });
});

describe('the published ports', () => {
  it('can be more, and the ones in use are not lost; or fewer, and what used the others ends', async () => {
    await network.connect(place, ports(1), { kind: 'none' }, undefined);
    const first = connection(outside, machine, firstPort);
    expect(await first.works()).toBe(true);
    expect(await connection(outside, machine, firstPort + 2).works()).toBe(false);

    await network.connect(place, ports(4), { kind: 'none' }, ports(1));
    const third = connection(outside, machine, firstPort + 2);
    expect([await first.works(), await third.works()]).toEqual([true, true]);

    // Which ports were published is not known, as after a kill in the middle.
    await network.connect(place, ports(2), { kind: 'none' }, undefined);
    expect([await first.works(), await third.works()]).toEqual([true, false]);
    expect(await connection(outside, machine, firstPort + 2).works()).toBe(false);

    await network.connect(place, ports(0), { kind: 'none' }, ports(2));
    expect(await first.works()).toBe(false);
    const { 'machine firewall': left } = await network.facts(place);
    expect(left.filter((line) => line.startsWith('published'))).toEqual([]);
  });

  it('are nobody any more once it is cut off', async () => {
    await network.connect(place, ports(3), { kind: 'none' }, undefined);
    const open = connection(outside, machine, firstPort);
    expect(await open.works()).toBe(true);
    await network.disconnect(place, undefined);
    expect(await open.works()).toBe(false);
  });
});

/** Each was seen to fail with the rules of before: what others had added stayed, and was taken for ours. */
describe('rules of others', () => {
  const table = `berth_${site}`;
  const nft = (...args: string[]) => run('nft', args);
  const inHost = (...args: string[]) => run('nsenter', [`--net=${place.netnsPath}`, 'nft', ...args]);
  const listing = async () =>
    (await nft('list', 'table', 'inet', table)).stdout + (await inHost('list', 'ruleset')).stdout;

  it("in a host's namespace go when its rules are written, in tables of their own as well", async () => {
    await inHost('add', 'table', 'inet', 'intruder');
    await inHost('insert', 'rule', 'inet', 'berth', 'output', 'accept');
    await network.connect(place, ports(0), { kind: 'none' }, undefined);
    const { firewall } = await network.facts(place);
    expect(await listing()).not.toContain('intruder');
    await network.connect(place, ports(0), { kind: 'none' }, ports(0));
    expect((await network.facts(place)).firewall).toEqual(firewall);
    expect(firewall.filter((line) => line.includes('"accept":null')).join('\n')).not.toMatch(
      /"chain":"output","expr":\[\{"accept"/,
    );
  });

  it("in the machine's table go when it is laid down, their chains named, and when a host is connected", async () => {
    await network.connect(place, ports(1), { kind: 'none' }, undefined);
    const before = await network.facts(place);
    await nft('add', 'chain', 'inet', table, 'intruder', '{ type filter hook forward priority -10; }');
    await nft('add', 'rule', 'inet', table, 'intruder', 'accept');
    expect(await network.open()).toEqual(['intruder']);
    expect(await network.facts(place)).toEqual(before);

    await nft('insert', 'rule', 'inet', table, 'forward', 'ip', 'daddr', '192.0.2.1', 'accept');
    expect(await listing()).toContain('192.0.2.1');
    expect(await network.connect(place, ports(1), { kind: 'none' }, ports(1))).toEqual(before);
    expect(await listing()).not.toContain('192.0.2.1');
    await network.disconnect(place, ports(1));
  });
});
