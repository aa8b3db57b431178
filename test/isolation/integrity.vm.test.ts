/* eslint-disable max-lines -- all tests share real hosts, which take minutes to make */
import { execFile } from 'node:child_process';
import { copyFile, open, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Drift } from '../../src/core/hypervisor/integrity.ts';
import { limitDiskRate } from '../../src/hypervisors/qemu/disk/disk-rate.ts';
import { createQemuHypervisor } from '../../src/hypervisors/qemu/qemu.ts';
import { openJail } from '../../src/hypervisors/qemu/launch/jail.ts';
import { withQmp } from '../../src/hypervisors/qemu/launch/qmp.ts';
import { processesOf } from '../../src/hypervisors/qemu/launch/leaked-processes.ts';
import { createRecordingLogger } from '../support/logger.ts';
import { eventually } from '../support/eventually.ts';
import { cutOff } from './support/cut-off.ts';
import { diskRate, makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

const execute = promisify(execFile);

/**
 * The next integrity check reports whatever has changed about a host. All tests but the one on the manifest fail with a
 * `compare` in verify.ts that finds nothing.
 */
describe('drift', { timeout: 960_000 }, () => {
  let hosts: TestHosts;
  let host: TestHost;
  let pid: number;

  beforeAll(async () => {
    hosts = await makeHosts({ ownFiles: true, options: { logger } });
    host = await hosts.make({ egress: { kind: 'internet' } });
    pid = await host.pid();
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  const { logger, lines } = createRecordingLogger();
  const verify = () => hosts.driver.verify(host.spec.hostId);
  const table = () => `berth_${hosts.options.site}`;

  /** Makes a change, checks, reverts it, and checks again. */
  async function expectDrift(
    part: string | readonly string[],
    detail: RegExp,
    alter: () => Promise<unknown>,
    undo: () => Promise<unknown>,
  ) {
    await altered(alter, undo, (found) => {
      expect(found.map((drift) => drift.part)).toEqual([part].flat());
      expect(found[0]?.detail).toMatch(detail);
    });
  }

  async function altered(
    alter: () => Promise<unknown>,
    undo: () => Promise<unknown>,
    look: (found: readonly Drift[]) => void,
  ) {
    expect(await verify()).toEqual([]);
    await alter();
    try {
      look(await verify());
    } finally {
      await undo();
    }
    expect(await verify()).toEqual([]);
  }

  it('drift: reports an added, a removed and a reordered firewall rule', async () => {
    // nft can't read its own listing completely, so the driver applies its rules again.
    const reload = () => hosts.driver.connect(host.spec);
    await expectDrift(
      'firewall',
      /new: rule .*192\.0\.2\.1/,
      () =>
        host.inNamespace(
          'nft',
          'insert',
          'rule',
          'inet',
          'berth',
          'egress',
          'ip',
          'daddr',
          '192.0.2.1',
          'accept',
        ),
      reload,
    );
    await expectDrift(
      'firewall',
      /missing: /,
      () => host.inNamespace('nft', 'flush', 'chain', 'netdev', 'berth', 'guest'),
      reload,
    );
    await expectDrift('firewall', /./, () => host.inNamespace('nft', 'flush', 'ruleset'), reload);
    await expectDrift('firewall', /^different order: rule /, firstRuleLast, reload);
  });

  // Fails if `boot` leaves the rejected VM running: the second start adopted it.
  it('drift: a VM that does not match its launch spec is rejected and killed at start', async () => {
    const jail = await openJail(hosts.options.stateDirectory);
    const altered = await createQemuHypervisor(hosts.options, {
      jail: {
        command: (command, exchange) => jail.command([...command, '-device', 'virtio-rng-pci'], exchange),
      },
    });
    // A plan without a template, so the host boots.
    const spec = { ...hosts.newSpec(), planName: 'unfrozen' };
    try {
      await altered.prepare(spec);
      for (let time = 1; time <= 2; time += 1) {
        await expect(altered.start(spec)).rejects.toThrow(
          /does not match its launch spec: argv: new: .*-device/,
        );
        expect(await altered.memoryUsage(spec.hostId)).toBe(undefined);
      }
    } finally {
      await altered.destroy(spec.hostId);
      await altered.close();
    }
  });

  // Fails if rules are applied again without a check: the drift was never reported.
  it('drift: reports a firewall rule even if the next action applies the rules again', async () => {
    const reported = () =>
      lines.filter(
        ({ event, drift }) => event === 'host.drift' && /192\.0\.2\.9/.test(JSON.stringify(drift)),
      );
    const rule = ['insert', 'rule', 'inet', 'berth', 'egress', 'ip', 'daddr', '192.0.2.9', 'accept'];
    await host.inNamespace('nft', ...rule);
    await hosts.driver.connect(host.spec);
    expect(reported()).toHaveLength(1);
    expect(await verify()).toEqual([]);
    const { length } = lines;
    await hosts.driver.connect(host.spec);
    // Changes made by a quarantine are not drift.
    await hosts.driver.quarantine(host.spec.hostId);
    await hosts.driver.release(host.spec.hostId);
    await hosts.driver.connect(host.spec);
    expect(lines.slice(length)).toEqual([]);
    expect(await verify()).toEqual([]);
  });

  // Fails if an unanswered check counts as drift at once: the first check reported it.
  it('drift: a monitor that does not answer is reported only after several checks', async () => {
    process.kill(pid, 'SIGSTOP');
    try {
      await expect(verify()).rejects.toThrow(/devices could not be checked/);
      await expect(verify()).rejects.toThrow(/devices could not be checked/);
      expect(await verify()).toMatchObject([
        { part: 'devices', detail: expect.stringMatching(/3 consecutive checks/) as string },
      ]);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    expect(await verify()).toEqual([]);
  });
  /** The same rules in another order; the first matching rule decides. */
  async function firstRuleLast() {
    const chain = ['inet', 'berth', 'egress'] as const;
    const listed = JSON.parse(await host.inNamespace('nft', '--json', 'list', 'chain', ...chain)) as {
      nftables: { rule?: { handle: number; expr: unknown } }[];
    };
    const [first] = listed.nftables.flatMap(({ rule }) => (rule === undefined ? [] : [rule]));
    const [family, table, name] = chain;
    const at = { family, table, chain: name };
    const moved = [
      { delete: { rule: { ...at, handle: first?.handle } } },
      { add: { rule: { ...at, expr: first?.expr } } },
    ];
    await host.inNamespace('nft', '--json', JSON.stringify({ nftables: moved }));
  }

  it("drift: a flush of the node's rules is not drift of its hosts, and is repaired", async () => {
    // Fails with the node's rules in each manifest: with the policy `quarantine`, a flush cut off every host.
    await execute('nft', ['delete', 'table', 'inet', table()]);
    expect(await verify()).toEqual([]);
    expect((await hosts.driver.repairNode()).altered).toEqual([`missing: table inet ${table()}`]);
    const { stdout } = await execute('nft', ['list', 'map', 'inet', table(), 'ports']);
    expect(stdout).toContain(` : ${host.layout.hostAddress}`);
  });

  it('drift: reports a changed cgroup limit and an added cgroup member', async () => {
    const roots = ['pids', ''].map((name) =>
      path.join('/sys/fs/cgroup', name, `berth-${hosts.options.site}`),
    );
    const { stdout } = await execute('find', [...roots, '-path', `*${host.spec.hostId}/pids.max`]).catch(
      (error: unknown) => error as { stdout: string },
    );
    const [limit = ''] = stdout.split('\n');
    await expectDrift(
      'cgroup',
      /missing: pids.max 128; new: pids.max max/,
      () => writeFile(limit, 'max'),
      () => writeFile(limit, '128'),
    );
    const group = path.dirname(limit);
    await expectDrift(
      'cgroup',
      /missing/,
      () => writeFile(path.join(path.dirname(path.dirname(group)), 'cgroup.procs'), String(pid)),
      () => writeFile(path.join(group, 'cgroup.procs'), String(pid)),
    );
  });

  it('drift: reports a changed process limit', async () => {
    const as = ['--reuid', String(host.layout.uid), '--clear-groups', 'prlimit', '--pid', String(pid)];
    const set = (most: number) => execute('setpriv', [...as, `--nofile=${most}:512`]);
    await expectDrift(
      'rlimits',
      /missing: Max open files 512 .*new: Max open files 256/,
      () => set(256),
      () => set(512),
    );
  });

  it('drift: reports changed mounts and namespaces', async () => {
    // Both are changed from outside: only the process itself could leave its namespaces, which the jail forbids.
    const inItsMounts = (act: string) =>
      execute('perl', [
        '-e',
        `open(my $n, '<', '/proc/${pid}/ns/mnt') or die; syscall(308, fileno $n, 0) == 0 or die "setns: $!";
         my ($type, $at) = ("tmpfs", "${host.layout.exchangeDirectory}"); ${act} == 0 or die "${act}: $!"`,
      ]);
    await expectDrift(
      'mounts',
      new RegExp(`new: / on ${host.layout.exchangeDirectory} `),
      () => inItsMounts('syscall(165, $type, $at, $type, 0, 0)'),
      () => inItsMounts('syscall(166, $at, 0)'),
    );
    await expectDrift(
      ['namespaces', 'firewall', 'network'],
      new RegExp(`new: ${host.layout.netns} is net:`),
      () => execute('mount', ['--bind', '/proc/self/ns/net', host.layout.netnsPath]),
      () => execute('umount', [host.layout.netnsPath]),
    );
  });

  it('drift: is reported for a paused host', async () => {
    // Its monitor still answers. A suspended host is compared after it was resumed.
    await hosts.driver.pause(host.spec.hostId);
    await expectDrift('devices', /block node intruder/, ...plugged('blockdev', nullDisk));
    await hosts.driver.resume(host.spec);
  });

  const qmp = (command: string, args: object = {}) =>
    withQmp(host.layout.qmpSocket, (monitor) => monitor.execute(command, { ...args }));
  const nullDisk = { driver: 'null-co', 'node-name': 'intruder', size: 4 * 1024 ** 3, 'read-only': true };
  const plugged = (kind: string, args: object): [() => Promise<unknown>, () => Promise<unknown>] => [
    () => qmp(`${kind}-add`, args),
    () => qmp(`${kind}-del`, { 'node-name': 'intruder' }),
  ];

  it('drift: reports another backing disk', async () => {
    const over = (backing: string) =>
      qmp('blockdev-reopen', {
        options: [
          {
            ...{ driver: 'qcow2', 'node-name': 'data', file: 'data-file', backing },
            ...{ discard: 'unmap', 'detect-zeroes': 'unmap' },
          },
        ],
      });
    await qmp('stop');
    await expectDrift(
      'devices',
      /missing: block node data: .*new: block node data: qcow2 writable .*null-co/,
      async () => {
        await qmp('blockdev-add', nullDisk);
        await over('intruder');
      },
      async () => {
        await over('template');
        await qmp('blockdev-del', { 'node-name': 'intruder' });
      },
    );
    await qmp('cont');
  });

  it('drift: reports an additional open file', async () => {
    await expectDrift(
      ['files', 'devices'],
      /new: write \/dev\/urandom/,
      () =>
        qmp('chardev-add', {
          id: 'intruder',
          backend: { type: 'file', data: { out: '/dev/urandom' } },
        }),
      () => qmp('chardev-remove', { id: 'intruder' }),
    );
  });

  it('drift: reports a device that is plugged into the running VM', async () => {
    await expectDrift('devices', /block node intruder/, ...plugged('blockdev', nullDisk));
    await expectDrift(
      'devices',
      /\/objects\/intruder/,
      () => qmp('object-add', { 'qom-type': 'throttle-group', id: 'intruder' }),
      () => qmp('object-del', { id: 'intruder' }),
    );
    await expectDrift(
      'devices',
      /missing: limit of /,
      () =>
        withQmp(host.layout.qmpSocket, (monitor) =>
          limitDiskRate(monitor, { mibPerSecond: 10_000, iops: 1_000_000 }),
        ),
      () => withQmp(host.layout.qmpSocket, (monitor) => limitDiskRate(monitor, diskRate)),
    );
    await expectDrift(
      'devices',
      /character device intruder/,
      () => qmp('chardev-add', { id: 'intruder', backend: { type: 'null', data: {} } }),
      () => qmp('chardev-remove', { id: 'intruder' }),
    );
  });

  it('drift: reports a changed byte of the image, the template or the empty disk of a running host', async () => {
    // The loaded template memory is sealed (jail.vm.test.ts); this is the file that it was loaded from.
    const state = hosts.options.stateDirectory;
    const template = path.join(state, 'templates', (await readdir(path.join(state, 'templates')))[0] ?? '');
    const { rootfs, kernel, initrd } = hosts.options.image;
    const base = path.join(state, 'disks', 'empty-4g.ext4');
    for (const files of [
      [path.join(template, 'memory'), base],
      [path.join(template, 'disk.qcow2'), rootfs],
      [kernel, initrd],
    ]) {
      const both = async () => {
        for (const file of files) await flip(file);
      };
      await altered(both, both, (found) => {
        expect(found.map(({ part }) => part)).toEqual(['digests']);
        for (const file of files)
          expect(found[0]?.detail).toMatch(new RegExp(`new: [0-9a-f]{64} ${file}\\b`));
      });
    }
  });

  it('drift: a changed template is reported and not used for new hosts', async () => {
    const templates = path.join(hosts.options.stateDirectory, 'templates');
    const [key = ''] = await readdir(templates);
    const state = path.join(templates, key, 'device-state');
    await expectDrift(
      'digests',
      /new: [0-9a-f]{64} .*device-state/,
      () => flip(state),
      () => flip(state),
    );

    await flip(state);
    const spec = hosts.newSpec();
    await hosts.driver.prepare(spec);
    await hosts.driver.start(spec);
    // Falls back to a cold boot although the template is still in memory.
    expect(await hosts.driver.startedFrom(spec.hostId)).toBe('boot');
    expect(await hosts.driver.hasTemplate(hosts.newSpec())).toBe(false);
    expect(await readFile(path.join(templates, key, 'damaged'), 'utf8')).toMatch(
      /device-state has the digest/,
    );
    await hosts.driver.destroy(spec.hostId);

    // Nor does a host boot on a changed template disk; the message names the file.
    await flip(state);
    const disk = path.join(templates, key, 'disk.qcow2');
    await hosts.driver.stop(host.spec.hostId);
    await flip(disk);
    await hosts.driver.prepare(host.spec);
    await expect(hosts.driver.start(host.spec)).rejects.toThrow(/template's disk has changed: .*disk\.qcow2/);
    await flip(disk);
    await hosts.driver.start(host.spec);
    expect(await verify()).toEqual([]);
    pid = await host.pid();
  });

  // Fails without the marker in vm-starter.ts: the VM stayed, and the check reported its process.
  it('drift: none after a worker was killed while it booted a host, because the next start boots it again', async () => {
    let changes = 0;
    for (let end = ''; end !== 'done';) {
      process.kill(await host.pid(), 'SIGKILL');
      await hosts.driver.stop(host.spec.hostId);
      await hosts.driver.prepare(host.spec);
      changes += 1;
      end = await cutOff(hosts.options, ['start', host.spec], changes);
      await hosts.driver.start(host.spec);
      expect(await verify(), `killed before change ${changes}`).toEqual([]);
    }
    expect(changes).toBeGreaterThan(5);
    pid = await host.pid();
  });

  // Fails if only the cgroup's processes are considered: the check found no VM.
  it('drift: reports a VM that was moved out of its cgroups', async () => {
    const groups = ['memory', 'cpu', 'pids', 'systemd', 'unified', ''].map((name) =>
      path.join('/sys/fs/cgroup', name),
    );
    for (const one of await processesOf(host.layout)) {
      for (const group of groups)
        await writeFile(path.join(group, 'cgroup.procs'), String(one)).catch(() => undefined);
    }
    expect((await verify()).map(({ part }) => part)).toEqual(['cgroup']);
    await hosts.driver.start(host.spec);
    expect(await host.pid()).not.toBe(pid);
    expect(await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).toBe('');
    expect(lines.filter(({ processes }) => Array.isArray(processes) && processes.includes(pid))).toHaveLength(
      1,
    );
    expect(await verify()).toEqual([]);
    pid = await host.pid();
  });

  // Fails if the signature is not verified: the content was reported as a change of the host.
  it('drift: reports a changed manifest', async () => {
    const file = host.layout.manifest;
    const text = await readFile(file, 'utf8');
    await expectDrift(
      'manifest',
      /does not carry a signature/,
      () => writeFile(file, text.replace('Seccomp: 2', 'Seccomp: 0')),
      () => writeFile(file, text),
    );
  });

  it("drift: reports a device in the guest's serial bus", async () => {
    // The only bus that accepts a device at run time; it has no free port beside the agent's.
    const port = { driver: 'virtserialport', bus: 'serial.0' };
    // An unplugged device releases its resources a moment later.
    const plug = (args: object) =>
      eventually('the device is plugged in', () =>
        qmp('device_add', { ...port, ...args }).catch((error: unknown) => {
          if (!/in use/.test(String(error))) throw error;
          return false;
        }),
      );
    const unplug = (id: string) => qmp('device_del', { id });
    await expectDrift(
      'devices',
      /missing: \/machine\/peripheral\/agent: .*new: \/machine\/peripheral\/intruder: /,
      async () => {
        await unplug('agent');
        await plug({ id: 'intruder' });
      },
      async () => {
        await unplug('intruder');
        await plug({ id: 'agent', chardev: 'agent', name: 'berth.agent' });
      },
    );
  });

  it('drift: reports a VM that was started by another user', async () => {
    const kept = `${host.layout.manifest}.kept`;
    await copyFile(host.layout.manifest, kept);
    const other = await createQemuHypervisor({ ...hosts.options, firstUid: hosts.options.firstUid + 300 });
    process.kill(pid, 'SIGKILL');
    await hosts.driver.stop(host.spec.hostId);
    await execute('chown', [String(host.layout.uid + 300), host.layout.disk]);
    await other.start(host.spec);
    await copyFile(kept, host.layout.manifest);
    const found = await verify();
    expect(found.map(({ part }) => part)).toEqual(expect.arrayContaining(['process', 'user']));
    expect(found.find(({ part }) => part === 'user')?.detail).toContain(`missing: Uid: ${host.layout.uid} `);
    await other.close();
  });
});

/** Flips one bit in the middle of a file; a second call restores the file. */
async function flip(file: string): Promise<void> {
  await execute('chmod', ['u+w', file]);
  const handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  const at = Math.floor((await handle.stat()).size / 2);
  await handle.read(byte, 0, 1, at);
  byte.writeUInt8(byte.readUInt8() ^ 1);
  await handle.write(byte, 0, 1, at);
  await handle.close();
}
