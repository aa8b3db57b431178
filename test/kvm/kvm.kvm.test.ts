import { spawn } from 'node:child_process';
import { readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { imageVersion } from '../../src/hypervisors/qemu/image/image-version.ts';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { isAboutTemplate, residueOf } from '../../tools/lib/residue.ts';
import { powerOfHost, sleepNow } from '../end-to-end/support/sleep.ts';
import { type BrokerProcess, makeBrokerProcess, planId } from '../support/broker-process.ts';
import { eventually } from '../support/eventually.ts';
import { privilegesOf } from '../support/process-privileges.ts';
import { testImage } from '../support/vm-cache.ts';
import { readLog } from './support/read-log.ts';

const project = path.join(import.meta.dirname, '..', '..');
const kvmDevice = '/dev/kvm';

/**
 * What users with KVM run, in the outer VM of `npm run test:kvm` (docs/testing.md). One story on one broker, because
 * everything takes minutes. A failed step ends it.
 */
describe('KVM', { timeout: 3_600_000 }, () => {
  const cleanUp: (() => Promise<void>)[] = [];
  let broker: BrokerProcess;
  let docker: Docker;

  /** Its running QEMU, by process id. */
  const qemuOf = async (host: string) => {
    for (const name of await readdir('/proc')) {
      const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
      if (command.startsWith('/usr/bin/qemu-system-x86_64\0') && command.includes(host)) {
        return { pid: Number(name), argv: command.split('\0') };
      }
    }
    throw new Error(`host ${host} has no QEMU`);
  };
  const hostOf = async (instance: string) => {
    const { body } = await broker.ask<{ hosts: { instance?: string; host: string }[] }>('GET', '/mgmt/hosts');
    return body.hosts.find((one) => one.instance === instance)?.host ?? 'none';
  };
  /** The output of a docker command, which is repeated while the gateway is out of sync and asks for that. */
  const must = (of: Docker, ...args: string[]) =>
    eventually(
      'the gateway is in sync',
      async () => {
        const { code, stdout, stderr } = await of.run(args);
        if (code !== 0 && stderr.includes('Try again shortly')) return undefined;
        expect(code, stderr).toBe(0);
        return stdout;
      },
      { deadlineMs: 60_000, everyMs: 2_000 },
    );
  const importBusybox = (of: Docker) =>
    eventually(
      'busybox is imported',
      async () => (await of.run(['import', '-', 'busybox:test'], await busyboxTree())).code === 0,
      { deadlineMs: 60_000, everyMs: 2_000 },
    );
  const bind = async (instance: string) => {
    const bound = await broker.bind(instance, `binding-of-${instance}`);
    expect(bound.status).toBe(201);
    const client = await dockerFor(bound.body.credentials);
    cleanUp.push(() => client.dispose());
    return client;
  };
  const succeeded = ({ status, body }: { status: number; body: object }) => {
    expect([200, 201], JSON.stringify(body)).toContain(status);
    expect(body).not.toMatchObject({ state: 'failed' });
  };

  beforeAll(async () => {
    broker = await makeBrokerProcess(0, {
      BERTH_TIME_LIMIT_FACTOR: process.env['BERTH_TIME_LIMIT_FACTOR'] ?? '1',
      BERTH_SYNC_WAIT_MS: '5000',
    });
    cleanUp.push(() => broker.dispose());
    cleanUp.push(readLog(() => broker.output()));
  }, 3_600_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 900_000);

  // Fails if the probe's guest gets no group for /dev/kvm.
  it('accelerator: the probe chooses KVM for a guest in the jail', async () => {
    const catalog = path.join(broker.stateDirectory, 'catalog.yaml');
    const usual = await readFile(catalog, 'utf8');
    // Without a template, which takes longest, for the image that is upgraded.
    await writeFile(catalog, usual.replace('"free":true', '"free":true,"template":"never"'));
    await broker.start({ BERTH_IMAGE_SUITE: 'bookworm' });
    await writeFile(catalog, usual);
    const verdict: unknown = JSON.parse(await readFile(path.join(broker.stateDirectory, 'kvm.json'), 'utf8'));
    console.log(`ACCELERATOR ${(verdict as { accelerator: string }).accelerator}`);
    expect(verdict).toMatchObject({
      accelerator: 'kvm',
      reason: "a guest ran under KVM in the hosts' jail",
    });
  });

  it('create: a host boots cold under KVM and runs a container', async () => {
    succeeded(await broker.create('upgraded', 'org'));
    docker = await bind('upgraded');
    expect(await must(docker, 'version', '--format', '{{.Server.Version}}')).toMatch(/^20\.10\./);
    await importBusybox(docker);
    const sleeper = ['run', '-d', '--restart', 'always', '--name', 'stays', 'busybox:test'];
    await must(docker, ...sleeper, '/bin/sleep', '1000000');
    await must(docker, 'exec', 'stays', '/bin/sh', '-c', 'echo kept >/tmp/file; /bin/busybox sync');
  });

  it('template: is made under KVM while the host runs', async () => {
    await broker.interrupt();
    await broker.start();
    expect(await readdir(path.join(broker.stateDirectory, 'templates'))).not.toEqual([]);
  });

  it('upgrade: the host changes to the newer image and keeps its container', async () => {
    const version = imageVersion((await testImage()).digest);
    await eventually('the upgrade is offered', async () => {
      const { body } = await broker.ask<{
        services: { plans: { id: string; maintenance_info?: { version: string } }[] }[];
      }>('GET', '/v2/catalog');
      const plans = body.services.flatMap((service) => service.plans);
      return plans.find(({ id }) => id === planId)?.maintenance_info?.version === version;
    });
    succeeded(await broker.upgrade('upgraded', version));
    expect(await must(docker, 'version', '--format', '{{.Server.Version}}')).toMatch(/^26\.1\./);
    await eventually(
      'the container runs again',
      async () => (await docker.run(['exec', 'stays', '/bin/cat', '/tmp/file'])).stdout === 'kept\n',
      { deadlineMs: 120_000, everyMs: 1_000 },
    );
    succeeded(await broker.remove('upgraded'));
  });

  it('create: a host is restored from the template under KVM', async () => {
    succeeded(await broker.create('restored', 'org'));
    docker = await bind('restored');
    expect(broker.output()).not.toContain('could not be restored');
    await importBusybox(docker);
    await must(docker, 'run', '-d', '--name', 'stays', 'busybox:test', '/bin/sleep', '1000000');
  });

  // Fails with an `-accel` of both accelerators, which leaves the choice to QEMU.
  it('QEMU: runs its guest under KVM, without a cache of translated code', async () => {
    const { pid, argv } = await qemuOf(await hostOf('restored'));
    expect(argv[argv.indexOf('-accel') + 1]).toBe('kvm');
    expect(argv.join(' ')).not.toMatch(/tcg|tb-size|lpj=/);
    const files = await Promise.all(
      (await readdir(`/proc/${pid}/fd`)).map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')),
    );
    expect(files).toEqual(expect.arrayContaining([kvmDevice, 'anon_inode:kvm-vm']));
  });

  // Fails if the launcher drops the group (QEMU does not start), or keeps those of root.
  it("jail: QEMU has the group of /dev/kvm in addition to its user's, and no other right", async () => {
    const { pid } = await qemuOf(await hostOf('restored'));
    const device = await stat(kvmDevice);
    // As udev sets it: closed to other users, so that the group is needed.
    expect(device.mode & 0o777).toBe(0o660);
    expect(device.gid).not.toBe(0);
    const { uids, groups, capabilities, canGain } = await privilegesOf(pid);
    expect(new Set(uids).size).toBe(1);
    expect(uids[0]).toBeGreaterThan(600_000);
    expect(groups.filter((group) => group !== uids[0])).toEqual([device.gid]);
    expect({ capabilities, canGain }).toEqual({ capabilities: [], canGain: false });
  });

  // Fails without `svm=off`: the guest has svm.
  it('guest: sees no extensions for nested VMs, which this node has', async () => {
    const nested = (text: string) =>
      (/^flags\s*:(.*)$/m.exec(text)?.[1] ?? 'none').split(' ').filter((flag) => /^(vmx|svm)$/.test(flag));
    const seen = await must(docker, 'exec', 'stays', '/bin/cat', '/proc/cpuinfo');
    expect(seen).toMatch(/^flags\s*:.* hypervisor/m);
    expect(nested(seen)).toEqual([]);
    // The control: the outer VM has them, or its KVM would not work.
    expect(nested(await readFile('/proc/cpuinfo', 'utf8'))).toEqual(['svm']);
  });

  it('sleep: a suspended host wakes for the next docker command, with its container', async () => {
    const started = ['inspect', '--format', '{{.State.Running}} {{.State.StartedAt}}', 'stays'];
    const before = await must(docker, ...started);
    await sleepNow(broker, 'restored', 'suspend');
    await expect(qemuOf(await hostOf('restored'))).rejects.toThrow('has no QEMU');
    expect(await must(docker, ...started)).toBe(before);
    expect(before).toMatch(/^true /);
    expect(await powerOfHost(broker, 'restored')).toBe('running');
    // Not restarted: its memory was loaded under KVM.
    expect(broker.output()).not.toContain('memory of a suspended host can not be loaded');
    succeeded(await broker.remove('restored'));
  });

  it('demo: passes', async () => {
    const demo = spawn(process.execPath, [path.join(project, 'dist-tools', 'tools', 'demo', 'main.js')], {
      env: { ...broker.environment },
      stdio: 'inherit',
    });
    const code = await new Promise((resolve) => demo.once('close', resolve));
    expect(code).toBe(0);
  });

  it('end: nothing is left of the hosts', async () => {
    expect((await residueOf(await broker.site())).filter((line) => !isAboutTemplate(line))).toEqual([]);
  });
});
