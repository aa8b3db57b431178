import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/**
 * A peer that looks like another computer: a namespace with one link to this node. It has an address on that link, so it
 * is on one of the node's networks, and a second one behind it, which stands for the internet.
 */
export interface OutsidePeer {
  /** The node's address on the link. */
  readonly nodeAddress: string;
  /** The peer's address on a network that the node is attached to. */
  readonly localAddress: string;
  /** The peer's address behind a router: the internet from a guest's view. */
  readonly internetAddress: string;
  /** Runs a program there; returns its standard output, or an empty string if it failed. */
  run(program: string, ...args: string[]): Promise<string>;
  /** Starts a long-running program, such as a server. It ends with the namespace. */
  start(program: string, ...args: string[]): void;
  remove(): Promise<void>;
}

export async function createOutsidePeer(): Promise<OutsidePeer> {
  const { octet, name, link } = await claimOctet();
  // TEST-NET-2 (RFC 5737), reserved for documentation; and a public network that the internet does not need: relays of
  // Automatic Multicast Tunneling (RFC 7450).
  const nodeAddress = `198.51.100.${octet}`;
  const localAddress = `198.51.100.${octet + 1}`;
  const internetAddress = `192.52.193.${octet}`;
  await ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
  await ip('address', 'add', `${nodeAddress}/31`, 'dev', link);
  await ip('link', 'set', link, 'up');
  await ip('-n', name, 'address', 'add', `${localAddress}/31`, 'dev', 'eth0');
  await ip('-n', name, 'address', 'add', `${internetAddress}/32`, 'dev', 'lo');
  await ip('-n', name, 'link', 'set', 'eth0', 'up');
  await ip('-n', name, 'link', 'set', 'lo', 'up');
  await ip('-n', name, 'route', 'add', 'default', 'via', nodeAddress);
  await ip('route', 'add', internetAddress, 'via', localAddress);
  const started: ChildProcess[] = [];
  const inside = (program: string, args: string[]) => [`--net=/run/netns/${name}`, program, ...args];
  return {
    nodeAddress,
    localAddress,
    internetAddress,
    run: async (program, ...args) =>
      (await execute('nsenter', inside(program, args)).catch(() => ({ stdout: '' }))).stdout,
    start(program, ...args) {
      started.push(spawn('nsenter', inside(program, args), { stdio: 'ignore' }));
    },
    async remove() {
      for (const child of started) child.kill('SIGKILL');
      await ip('link', 'delete', link).catch(() => undefined);
      await ip('netns', 'delete', name).catch(() => undefined);
    },
  };
}

const ip = (...args: string[]) => execute('ip', args);

/** Several peers can exist at once: the process that creates the namespace of a number owns its addresses. */
async function claimOctet(): Promise<{ octet: number; name: string; link: string }> {
  for (let octet = 64; octet < 254; octet += 2) {
    const name = `outside-${octet}`;
    try {
      await ip('netns', 'add', name);
      return { octet, name, link: `out${octet}` };
    } catch (error) {
      if (!String(error).includes('File exists')) throw error;
    }
  }
  throw new Error('all networks for outside peers are in use: see ip netns list');
}
