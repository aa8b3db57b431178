import { type ChildProcessWithoutNullStreams, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';
import type { Egress, PortBlock } from '../../src/core/hypervisor/host-spec.ts';
import { leaseMs } from '../../src/core/lease-duration.ts';
import { createHostLocks } from '../../src/hypervisors/host-locks.ts';
import { guestLink } from '../../src/guest/link.ts';
import { createHostNetworking } from '../../src/hypervisors/qemu/network/network.ts';
import { closedSeconds } from '../../src/hypervisors/qemu/network/connection-limits.ts';
import { layoutOf } from '../../src/hypervisors/qemu/layout.ts';
import { tap } from '../../src/hypervisors/qemu/names.ts';
import { removeInstallationTraces } from '../../tools/lib/residue.ts';
import { eventually } from './eventually.ts';
import { testSlot } from './test-slot.ts';

/** A host's network with a namespace instead of a guest, so that no VM has to boot, and a namespace that is the outside. */
export const site = randomBytes(2).toString('hex');
export const options = {
  site,
  stateDirectory: '/nonexistent',
  runDirectory: `/run/berth-${site}`,
  hostNetwork: `10.213.${testSlot}.0/24`,
  firstUid: 1,
  gatewayUid: 1,
  dnsServers: [],
  denyNetworks: [`203.0.113.${testSlot * 8 + 4}/32`],
  hostLimits: { connections: 100, bandwidthMbit: 1000 },
};
export const layout = layoutOf(options, 'guest', 1);
/** The network as another worker has it. */
export const newNetwork = () =>
  createHostNetworking(
    options,
    createHostLocks(`${options.runDirectory}/locks`, { patienceMs: leaseMs, logger: undefined }),
  );
export const network = newNetwork();
export const guest = `berth-${site}-guest`;
export const outside = `berth-${site}-outside`;
export const outsideLink = `bo${site}`;
/** The node's address on the outside link, and two addresses of an outside peer (RFC 5737). */
export const [node, one, other, denied] = [1, 2, 3, 4].map((last) => `203.0.113.${testSlot * 8 + last}`) as [
  string,
  string,
  string,
  string,
];
export const firstPort = 19_000 + testSlot * 100;
export const ports = (count: number): PortBlock => ({ first: firstPort, count });
export const to = (...cidrs: string[]): Egress => ({ kind: 'networks', cidrs });

export const run = promisify(execFile);
export const inHost = (...args: string[]) => run('nsenter', [`--net=${layout.netnsPath}`, 'nft', ...args]);
/** Packets that the host's namespace has dropped for a reason. */
export const dropped = async (reason: string) => {
  const { stdout } = await inHost('list', 'counters');
  const counts = [...stdout.matchAll(/counter dropped_(\w+) \{\s+packets (\d+)/g)];
  return counts.filter(([, name]) => name === reason).reduce((sum, [, , count]) => sum + Number(count), 0);
};
const started: ChildProcessWithoutNullStreams[] = [];
export const busybox = (namespace: string, ...args: string[]) => {
  const child = spawn('nsenter', [`--net=/run/netns/${namespace}`, '/bin/busybox', ...args]);
  started.push(child);
  return child;
};

/** Longer than a closed connection stays in the tables of the node. */
const lateSeconds = closedSeconds + 3;
/** Echoes. To a connection that begins with the line `later`, it answers `late` some time after the client has half-closed it. */
const engine = `read -r first; echo "$first"; [ "$first" = later ] || exec cat; cat >/dev/null; sleep ${lateSeconds}; echo late`;

/** A server with this program on its connections. */
async function serve(namespace: string, port: number, ...program: readonly string[]): Promise<void> {
  busybox(namespace, 'nc', '-ll', '-p', String(port), '-e', ...program);
  await eventually('the server listens', async () =>
    (await run('nsenter', [`--net=/run/netns/${namespace}`, 'ss', '-ltnH'])).stdout.includes(`:${port} `),
  );
}

/** An open connection to an echo server. */
export function connection(namespace: string, address: string, port: number) {
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

export async function makeNamespaceGuest(): Promise<void> {
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
    ['-netns', outside, 'address', 'add', `${denied}/29`, 'dev', 'eth0'],
    ['-netns', outside, 'link', 'set', 'eth0', 'up'],
    ['-netns', outside, 'link', 'set', 'lo', 'up'],
  ]) {
    await run('ip', command);
  }
  await serve(guest, guestLink.enginePort, '/bin/sh', '-c', engine);
  await serve(outside, 7, '/bin/cat');
  for (const port of [firstPort, firstPort + 2]) await serve(guest, port, '/bin/cat');
}

export async function removeNamespaceGuest(): Promise<void> {
  for (const child of started) child.kill('SIGKILL');
  await network.destroy(layout, undefined);
  for (const namespace of [guest, outside]) {
    // Each connection to the echo server has a process, which does not end with the server.
    const { stdout } = await run('ip', ['netns', 'pids', namespace]);
    for (const pid of stdout.split('\n').filter(Boolean)) process.kill(Number(pid), 'SIGKILL');
    await run('ip', ['netns', 'delete', namespace]);
  }
  await run('ip', ['link', 'delete', outsideLink]).catch(() => undefined);
  await removeInstallationTraces(site);
}
