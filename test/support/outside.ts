import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** Another computer, as far as this one can tell: a namespace with one link to this machine and nothing else. */
export interface Outside {
  /** Runs a program there; returns its standard output, empty where it failed. */
  run(program: string, ...args: string[]): Promise<string>;
  remove(): Promise<void>;
}

export async function makeOutside(): Promise<Outside> {
  const id = randomBytes(2).toString('hex');
  const name = `outside-${id}`;
  const link = `out${id}`;
  const octet = 1 + (Number.parseInt(id, 16) % 250);
  const ip = (...args: string[]) => execute('ip', args);
  await ip('netns', 'add', name);
  await ip('link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
  // TEST-NET-2 (RFC 5737): nobody's addresses.
  await ip('address', 'add', `198.51.100.${octet}/31`, 'dev', link);
  await ip('link', 'set', link, 'up');
  await ip('-n', name, 'address', 'add', `198.51.100.${octet ^ 1}/31`, 'dev', 'eth0');
  await ip('-n', name, 'link', 'set', 'eth0', 'up');
  await ip('-n', name, 'route', 'add', 'default', 'via', `198.51.100.${octet}`, 'onlink', 'dev', 'eth0');
  return {
    run: async (program, ...args) =>
      (await execute('nsenter', [`--net=/run/netns/${name}`, program, ...args]).catch(() => ({ stdout: '' })))
        .stdout,
    async remove() {
      await ip('link', 'delete', link).catch(() => undefined);
      await ip('netns', 'delete', name).catch(() => undefined);
    },
  };
}
