import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
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
  const id = randomBytes(2).toString('hex');
  const name = `outside-${id}`;
  const link = `out${id}`;
  // TEST-NET-2 and TEST-NET-3 (RFC 5737): nobody's addresses.
  const octet = 2 + 2 * (Number.parseInt(id, 16) % 120);
  const machineAddress = `198.51.100.${octet}`;
  const localAddress = `198.51.100.${octet + 1}`;
  const internetAddress = `203.0.113.${octet}`;
  const ip = (...args: string[]) => execute('ip', args);
  await ip('netns', 'add', name);
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
