import type { EngineAddress } from '../../../src/core/hypervisor/network.ts';
import { busyboxTree } from '../../../tools/lib/docker.ts';
import { askEngine, type EngineRequest } from '../../../src/hypervisors/qemu/engine/engine.ts';

const timeoutMs = 300_000;

/** A tenant with everything that Docker's API allows: root in its guest, outside of every container. */
export interface Attacker {
  /** Runs a shell script as the guest's root, with its root file system at /host; returns the output. */
  root(script: string): Promise<string>;
  /** Runs a perl script the same way with the guest's perl: raw sockets, system calls. */
  perl(script: string): Promise<string>;
  /** Runs a program of the container's image the same way. */
  run(command: readonly string[]): Promise<string>;
}

/**
 * Makes a privileged container with the guest's network, processes, cgroups and files, using Docker's API only.
 * @param tree additional content of its image, as tar; busybox is always included.
 */
export async function makeAttacker(engine: EngineAddress, tree?: Buffer): Promise<Attacker> {
  const ask = async (method: EngineRequest['method'], path: string, body?: Buffer | object) => {
    const sent = body === undefined || Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
    const answer = await askEngine(engine, {
      ...{ method, path, timeoutMs, maxBytes: 1024 * 1024 },
      ...(sent && {
        body: sent,
        contentType: Buffer.isBuffer(body) ? 'application/x-tar' : 'application/json',
      }),
    });
    const text = answer.body.toString('latin1');
    if (answer.status >= 400) throw new Error(`${method} ${path}: ${answer.status} ${text.slice(0, 500)}`);
    return text;
  };
  await ask('POST', '/images/create?fromSrc=-&repo=attack&tag=1', tree ?? (await busyboxTree()));
  const created = await ask('POST', '/containers/create', {
    Image: 'attack:1',
    Cmd: ['/bin/busybox', 'sleep', '1000000'],
    HostConfig: {
      Privileged: true,
      NetworkMode: 'host',
      PidMode: 'host',
      CgroupnsMode: 'host',
      Binds: ['/:/host'],
    },
  });
  const { Id: container } = JSON.parse(created) as { Id: string };
  await ask('POST', `/containers/${container}/start`);

  async function run(command: readonly string[]): Promise<string> {
    const exec = await ask('POST', `/containers/${container}/exec`, {
      Cmd: command,
      AttachStdout: true,
      AttachStderr: true,
      // With a terminal the stream is the plain output.
      Tty: true,
    });
    const { Id: id } = JSON.parse(exec) as { Id: string };
    return (await ask('POST', `/exec/${id}/start`, { Detach: false, Tty: true })).replaceAll('\r\n', '\n');
  }
  return {
    root: (script) =>
      run([
        '/bin/sh',
        '-c',
        `for a in $(/bin/busybox --list); do alias $a="busybox $a"; done 2>/dev/null; ${script}`,
      ]),
    run,
    perl: (script) => run(['/bin/busybox', 'chroot', '/host', '/usr/bin/perl', '-e', script]),
  };
}
