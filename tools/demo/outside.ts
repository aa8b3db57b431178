import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/**
 * Another computer, as far as this one can tell: a namespace with one link to this machine. It has an address on
 * that link, so it is on the machine's own network, and one on the internet behind it.
 */
export interface Outside {
  /** Of this machine, on the link between the two. */
  readonly machineAddress: string;
  /** On a network that this machine is part of. */
  readonly localAddress: string;
  /** Behind a router: what a guest takes for the internet. */
  readonly internetAddress: string;
  /** Runs a program there; returns its standard output, empty where it failed. */
  run(program: string, ...args: string[]): Promise<string>;
  /** Starts a program that goes on, a server say. It ends with the namespace. */
  start(program: string, ...args: string[]): void;
  remove(): Promise<void>;
}

export async function makeOutside(): Promise<Outside> {
  const { octet, name, link } = await claimOctet();
  // TEST-NET-2 and TEST-NET-3 (RFC 5737): nobody's addresses.
  const machineAddress = `198.51.100.${octet}`;
  const localAddress = `198.51.100.${octet + 1}`;
  const internetAddress = `203.0.113.${octet}`;
  await ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
  await ip('address', 'add', `${machineAddress}/31`, 'dev', link);
  await ip('link', 'set', link, 'up');
  await ip('-n', name, 'address', 'add', `${localAddress}/31`, 'dev', 'eth0');
  await ip('-n', name, 'address', 'add', `${internetAddress}/32`, 'dev', 'lo');
  await ip('-n', name, 'link', 'set', 'eth0', 'up');
  await ip('-n', name, 'link', 'set', 'lo', 'up');
  await ip('-n', name, 'route', 'add', 'default', 'via', machineAddress);
  await ip('route', 'add', internetAddress, 'via', localAddress);
  const started: ChildProcess[] = [];
  const inside = (program: string, args: string[]) => [`--net=/run/netns/${name}`, program, ...args];
  return {
    machineAddress,
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

/** Several may be there at once, each with addresses of its own: who makes the namespace of a number has its addresses. */
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
  throw new Error('Every network of an outside is taken: ip netns list');
}
