import { type ChildProcess, spawn } from 'node:child_process';
import { access, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { busyboxTree } from '../../lib/docker.ts';
import { runTool } from '../../../src/hypervisors/run-tool.ts';
import { stopChild } from '../lib/child-process.ts';
import { registerCleanup } from '../lib/cleanup.ts';

/** Debian's Docker engine on the node itself, separate from any engine that is installed there. */
export interface NativeEngine {
  /** How long `docker run` of a container that prints a word takes, in milliseconds. */
  timedRun(): Promise<number>;
  stop(): Promise<void>;
}

const image = 'native:1';
const startTimeoutMs = 60_000;
/** Separate from the node's other control groups. */
const cgroup = '/berth-bench-native';

/**
 * Starts containerd and dockerd with separate directories, sockets and control group, and without a bridge or
 * firewall rules.
 * @param directory Debian's packages docker.io, containerd and runc, unpacked (setup/run).
 * @throws Error with its last output if it does not run here, for example on a kernel without overlayfs.
 */
export async function startNativeEngine(directory: string): Promise<NativeEngine> {
  const programs = ['usr/bin', 'usr/sbin'].map((name) => path.join(directory, name));
  await access(path.join(directory, 'usr/sbin/dockerd'));
  const state = await mkdtemp('/var/tmp/berth-bench-native-');
  const at = (name: string) => path.join(state, name);
  const socket = `unix://${at('docker.sock')}`;
  const children: ChildProcess[] = [];
  let output = '';
  const start = (name: string, args: readonly string[]) => {
    const child = spawn(name, args, {
      env: { PATH: [...programs, '/usr/sbin:/usr/bin:/sbin:/bin'].join(':') },
      stdio: ['ignore', 'ignore', 'pipe'],
      // Ctrl-C is for the bench, which then ends it.
      detached: true,
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-4000)));
    child.on('error', (error) => (output += error.message));
    children.push(child);
  };
  const docker = (args: readonly string[], input?: Buffer) =>
    runTool(path.join(directory, 'usr/bin/docker'), ['--config', at('config'), '--host', socket, ...args], {
      ...(input !== undefined && { input }),
      timeoutMs: 120_000,
    });
  const stop = registerCleanup(async () => {
    for (const child of children.reverse()) await stopChild(child, 'SIGTERM');
    // In each hierarchy of version 1, or in the one of version 2.
    for (const name of ['', ...(await readdir('/sys/fs/cgroup'))]) {
      await runTool('rmdir', [path.join('/sys/fs/cgroup', name, cgroup)]).catch(() => '');
    }
    await rm(state, { recursive: true, force: true });
  });

  try {
    await mkdir(at('config'));
    start('containerd', [
      ...['--root', at('containerd'), '--state', at('containerd-state')],
      ...['--address', at('containerd.sock')],
    ]);
    start('dockerd', [
      ...['--containerd', at('containerd.sock'), '--data-root', at('data'), '--exec-root', at('exec')],
      ...['--pidfile', at('docker.pid'), '--host', socket, '--cgroup-parent', cgroup],
      ...['--bridge', 'none', '--iptables=false', '--ip6tables=false', '--ip-masq=false'],
    ]);
    const deadline = performance.now() + startTimeoutMs;
    for (;;) {
      const isUp = await docker(['version']).then(
        () => true,
        () => false,
      );
      if (isUp) break;
      if (children.some(({ exitCode }) => exitCode !== null) || performance.now() > deadline) {
        throw new Error(`Debian's engine does not run on this node: ${output.slice(-500)}`);
      }
      await delay(100);
    }
    await docker(['import', '-', image], await busyboxTree());
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    async timedRun() {
      const begun = performance.now();
      await docker(['run', '--rm', '--network', 'none', image, '/bin/echo', 'hello']);
      return performance.now() - begun;
    },
    stop,
  };
}
