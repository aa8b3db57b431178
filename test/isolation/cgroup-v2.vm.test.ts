import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compiled } from '../support/build.ts';
import { makeAttacker } from './support/attacker.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

const execute = promisify(execFile);

/**
 * The other isolation tests run on whatever version of control groups the machine has. A guest's kernel has version
 * 2 only, so there the broker's own code is tried on it, wherever the tests are run.
 */
describe('control groups of version 2', { timeout: 960_000 }, () => {
  let hosts: TestHosts;
  let host: TestHost;

  beforeAll(async () => {
    hosts = await makeHosts();
    host = await hosts.make();
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  it('10: have the limits of a host, hold its processes to them, and are emptied and removed', async () => {
    // Seen to fail without pids.max for v2 in cgroup.ts: all 400 processes were made; and where the installation's own
    // group has no controllers turned on: no limit was there. A host is not made then.
    const guest = await makeAttacker(host.engine, await nodeTree());
    const found = JSON.parse(await guest.run(['/node', '/cgroup-v2.mjs'])) as Record<string, unknown>;
    expect(found).toMatchObject({
      folders: ['/sys/fs/cgroup/berth-cafe/machine'],
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

/** Node itself with what it is linked with, and the compiled code of control groups. */
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
      ...['-C', code, 'hypervisors/qemu/cgroup.js', 'core/hypervisor.js'],
    ],
    { encoding: 'buffer', maxBuffer: 512 * 1024 ** 2 },
  );
  return stdout;
}
