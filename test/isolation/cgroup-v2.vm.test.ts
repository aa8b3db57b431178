import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compiled } from '../support/build.ts';
import { makeAttacker } from './support/attacker.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

const execute = promisify(execFile);

/**
 * The other isolation tests use whichever cgroup version the node has. A guest's kernel has version 2 only, so Berth's
 * own cgroup code runs inside a guest here.
 */
describe('cgroup v2', { timeout: 960_000 }, () => {
  let hosts: TestHosts;
  let host: TestHost;

  beforeAll(async () => {
    hosts = await makeHosts();
    host = await hosts.make();
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  it('10: cgroup v2: has the limits of a host, enforces them, and is emptied and removed', async () => {
    // Fails without pids.max for v2 in cgroups.ts (all 400 processes were made), and without controllers enabled in the
    // installation's group (there was no limit; then a host is not made).
    const guest = await makeAttacker(host.engine, await nodeTree());
    const found = JSON.parse(await guest.run(['/node', '/cgroup-v2.mjs'])) as Record<string, unknown>;
    expect(found).toMatchObject({
      folders: ['/sys/fs/cgroup/berth-cafe/vm'],
      limits: [
        `memory.max ${(768 + 512) * 1024 ** 2}`,
        'memory.swap.max 0',
        'cpu.max 250000 100000',
        'pids.max 128',
      ],
      emptyAtFirst: [],
      printed: '',
      afterKill: [],
      gone: [true],
    });
    expect(found['processes']).toBeGreaterThan(100);
    expect(found['processes']).toBeLessThanOrEqual(128);
  });
});

/** Node.js with its libraries, and the compiled cgroup code. */
async function nodeTree(): Promise<Buffer> {
  const code = await compiled();
  const { stdout: linked } = await execute('ldd', [process.execPath]);
  const libraries = [...linked.matchAll(/(?<==> |^\s+)\/(\S+)/gm)].map(([, file = '']) => file);
  const project = path.join(import.meta.dirname, '..', '..');
  const { stdout } = await execute(
    'tar',
    [
      ...['--create', '--dereference', '--file=-', '-C', '/', 'bin/busybox', ...libraries],
      ...['-C', path.dirname(process.execPath), path.basename(process.execPath)],
      ...['-C', project, 'package.json', '-C', path.join(import.meta.dirname, 'support'), 'cgroup-v2.mjs'],
      ...[
        '-C',
        code,
        'hypervisors/qemu/launch/cgroups.js',
        'core/hypervisor/hypervisor-error.js',
        'lib/kill-until-gone.js',
        'lib/write-kernel-file.js',
      ],
    ],
    { encoding: 'buffer', maxBuffer: 512 * 1024 ** 2 },
  );
  return stdout;
}
