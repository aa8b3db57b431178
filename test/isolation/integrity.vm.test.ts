import { execFile } from 'node:child_process';
import { copyFile, open, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createQemuHypervisor } from '../../src/hypervisors/qemu/qemu.ts';
import { withQmp } from '../../src/hypervisors/qemu/qmp.ts';
import { processesOf } from '../../src/hypervisors/qemu/strays.ts';
import { createRecordingLogger } from '../support/logger.ts';
import { makeHosts, type TestHost, type TestHosts } from './support/hosts.ts';

const execute = promisify(execFile);

/**
 * Whatever is altered of a host is named by the next check. All but that of the manifest were seen to fail with a
 * `compare` in verify.ts that finds nothing.
 */
describe('an alteration', { timeout: 240_000 }, () => {
  let hosts: TestHosts;
  let host: TestHost;
  let pid: number;

  beforeAll(async () => {
    hosts = await makeHosts({ ownTemplates: true, options: { logger } });
    host = await hosts.make({ egress: { kind: 'internet' } });
    pid = await host.pid();
  }, 1_200_000);
  afterAll(() => hosts.close(), 120_000);

  const { logger, lines } = createRecordingLogger();
  const verify = () => hosts.driver.verify(host.spec.hostId);
  const table = () => `berth_${hosts.options.site}`;

  /** Alters, looks, puts it back, and looks again. */
  async function expectNamed(
    part: string,
    detail: RegExp,
    alter: () => Promise<unknown>,
    undo: () => Promise<unknown>,
  ) {
    expect(await verify()).toEqual([]);
    await alter();
    try {
      const found = await verify();
      expect(found.map((alteration) => alteration.part)).toEqual([part]);
      expect(found[0]?.detail).toMatch(detail);
    } finally {
      await undo();
    }
    expect(await verify()).toEqual([]);
  }

  it('of a firewall rule is named: one more, one less, another order', async () => {
    // nft can't read back all that it lists, so the driver writes its rules anew.
    const reload = () => hosts.driver.connect(host.spec);
    await expectNamed(
      'firewall',
      /not there before: rule .*192\.0\.2\.1/,
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
    await expectNamed(
      'firewall',
      /missing: /,
      () => host.inNamespace('nft', 'flush', 'chain', 'netdev', 'berth', 'guest'),
      reload,
    );
    await expectNamed('firewall', /./, () => host.inNamespace('nft', 'flush', 'ruleset'), reload);
  });

  // Seen to fail where rules are written anew without a look: nobody ever heard of it.
  it('of a firewall rule is reported also where the next act writes the rules anew', async () => {
    const reported = () =>
      lines.filter(
        ({ event, alterations }) =>
          event === 'host.altered' && /192\.0\.2\.9/.test(JSON.stringify(alterations)),
      );
    const rule = ['insert', 'rule', 'inet', 'berth', 'egress', 'ip', 'daddr', '192.0.2.9', 'accept'];
    await host.inNamespace('nft', ...rule);
    await hosts.driver.connect(host.spec);
    expect(reported()).toHaveLength(1);
    expect(await verify()).toEqual([]);
    const { length } = lines;
    await hosts.driver.connect(host.spec);
    // What a quarantine changes is no alteration.
    await hosts.driver.quarantine(host.spec.hostId);
    await hosts.driver.release(host.spec.hostId);
    await hosts.driver.connect(host.spec);
    expect(lines.slice(length)).toEqual([]);
    expect(await verify()).toEqual([]);
  });

  // Seen to fail where a silence is an alteration at once: the first check named it.
  it('is not what load alone does: a monitor that is silent for a while; but one that stays so is', async () => {
    process.kill(pid, 'SIGSTOP');
    try {
      await expect(verify()).rejects.toThrow(/devices could not be checked/);
      await expect(verify()).rejects.toThrow(/devices could not be checked/);
      expect(await verify()).toMatchObject([
        { part: 'devices', detail: expect.stringMatching(/3 checks in turn/) as string },
      ]);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    expect(await verify()).toEqual([]);
  });

  it('of what is published on the machine is named', async () => {
    const { first } = host.spec.publishedPorts;
    const range = `${first}-${first + 3}`;
    await expectNamed(
      'machine firewall',
      /missing: published/,
      () =>
        execute('nft', [
          'delete',
          'element',
          'inet',
          table(),
          'ports',
          `{ ${range} : ${host.place.hostAddress} }`,
        ]),
      () =>
        execute('nft', [
          'add',
          'element',
          'inet',
          table(),
          'ports',
          `{ ${range} : ${host.place.hostAddress} }`,
        ]),
    );
  });

  it('of a limit of its control group is named, and of its members', async () => {
    const roots = ['pids', ''].map((name) =>
      path.join('/sys/fs/cgroup', name, `berth-${hosts.options.site}`),
    );
    const { stdout } = await execute('find', [...roots, '-path', `*${host.spec.hostId}/pids.max`]).catch(
      (error: unknown) => error as { stdout: string },
    );
    const [limit = ''] = stdout.split('\n');
    await expectNamed(
      'cgroup',
      /missing: pids.max 128; not there before: pids.max max/,
      () => writeFile(limit, 'max'),
      () => writeFile(limit, '128'),
    );
    const group = path.dirname(limit);
    await expectNamed(
      'cgroup',
      /missing/,
      () => writeFile(path.join(path.dirname(path.dirname(group)), 'cgroup.procs'), String(pid)),
      () => writeFile(path.join(group, 'cgroup.procs'), String(pid)),
    );
  });

  it('of a limit of its process is named', async () => {
    const as = ['--reuid', String(host.place.uid), '--clear-groups', 'prlimit', '--pid', String(pid)];
    const set = (most: number) => execute('setpriv', [...as, `--nofile=${most}:512`]);
    await expectNamed(
      'rlimits',
      /missing: Max open files 512 .*not there before: Max open files 256/,
      () => set(256),
      () => set(512),
    );
  });

  it('of its devices and of its disk chain is named: what is plugged into the running machine', async () => {
    const qmp = (command: string, args: object) =>
      withQmp(host.place.qmpSocket, (monitor) => monitor.execute(command, { ...args }));
    await expectNamed(
      'devices',
      /block node intruder/,
      () => qmp('blockdev-add', { driver: 'null-co', 'node-name': 'intruder' }),
      () => qmp('blockdev-del', { 'node-name': 'intruder' }),
    );
    await expectNamed(
      'devices',
      /\/objects\/intruder/,
      () => qmp('object-add', { 'qom-type': 'throttle-group', id: 'intruder' }),
      () => qmp('object-del', { id: 'intruder' }),
    );
    await expectNamed(
      'devices',
      /character device intruder/,
      () => qmp('chardev-add', { id: 'intruder', backend: { type: 'null', data: {} } }),
      () => qmp('chardev-remove', { id: 'intruder' }),
    );
  });

  it('of a byte of the template is named, and no host is made from it any more', async () => {
    const templates = path.join(hosts.options.stateDirectory, 'templates');
    const [key = ''] = await readdir(templates);
    const state = path.join(templates, key, 'device-state');
    await expectNamed(
      'digests',
      /not there before: [0-9a-f]{64} .*device-state/,
      () => flip(state),
      () => flip(state),
    );

    await flip(state);
    const spec = hosts.newSpec();
    await hosts.driver.prepare(spec);
    await hosts.driver.start(spec);
    // Not from the template, though it is in memory: the fall-back is a cold boot.
    expect(await hosts.driver.startedFrom(spec.hostId)).toBe('boot');
    expect(await hosts.driver.hasTemplate('small')).toBe(false);
    expect(await readFile(path.join(templates, key, 'damaged'), 'utf8')).toMatch(
      /device-state has the digest/,
    );
    await hosts.driver.destroy(spec.hostId);

    // Nor is a host booted over an altered disk of the template; the message says which file it is.
    await flip(state);
    const disk = path.join(templates, key, 'disk.qcow2');
    await hosts.driver.stop(host.spec.hostId);
    await flip(disk);
    await hosts.driver.prepare(host.spec);
    await expect(hosts.driver.start(host.spec)).rejects.toThrow(
      /template's disk has been altered: .*disk\.qcow2/,
    );
    await flip(disk);
    await hosts.driver.start(host.spec);
    expect(await verify()).toEqual([]);
    pid = await host.pid();
  });

  // Seen to fail where only the control group's processes are looked at: the check found no machine.
  it('of its control group is named, and the machine found, when it was moved out of all of it', async () => {
    const groups = ['memory', 'cpu', 'pids', ''].map((name) => path.join('/sys/fs/cgroup', name));
    for (const one of await processesOf(host.place)) {
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

  // Seen to fail where the signature is not looked at: what was written there was named, as if the host had changed.
  it('of its manifest is named', async () => {
    const file = host.place.manifest;
    const text = await readFile(file, 'utf8');
    await expectNamed(
      'manifest',
      /does not carry a signature/,
      () => writeFile(file, text.replace('Seccomp: 2', 'Seccomp: 0')),
      () => writeFile(file, text),
    );
  });

  it('of its user is named: a machine that somebody else has started in its place', async () => {
    const kept = `${host.place.manifest}.kept`;
    await copyFile(host.place.manifest, kept);
    const other = await createQemuHypervisor({ ...hosts.options, firstUid: hosts.options.firstUid + 300 });
    process.kill(pid, 'SIGKILL');
    await hosts.driver.stop(host.spec.hostId);
    await execute('chown', [String(host.place.uid + 300), host.place.disk]);
    await other.start(host.spec);
    await copyFile(kept, host.place.manifest);
    const found = await verify();
    expect(found.map(({ part }) => part)).toEqual(expect.arrayContaining(['process', 'user']));
    expect(found.find(({ part }) => part === 'user')?.detail).toContain(`missing: Uid: ${host.place.uid} `);
    await other.close();
  });
});

/** Turns over one bit in the middle of a file; done twice, the file is as it was. */
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
