import { execFile } from 'node:child_process';
import { cp, readFile, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { type BrokerProcess, makeBrokerProcess } from '../support/broker-process.ts';
import { busyboxTree, type Docker, dockerFor } from '../../tools/lib/docker.ts';
import { connectPlatform } from '../../tools/lib/platform.ts';
import { eventually } from '../support/eventually.ts';
import { readImageRecord, writeImageRecord } from '../../src/hypervisors/qemu/image/guest-image.ts';
import { processesWith, residueOf } from '../../tools/lib/residue.ts';
import { testImage } from '../support/vm-cache.ts';
import { imageVersion } from '../../src/hypervisors/qemu/image/image-version.ts';
import { installBrokenImage } from './support/broken-image.ts';
import { mountHostsDisk, unmountHostsDisk } from './support/hosts-disk.ts';
import { removeWhatARebootRemoves } from './support/reboot.ts';

const execute = promisify(execFile);

/** As of an installation that was made with Debian 12. */
const former = { BERTH_IMAGE_SUITE: 'bookworm' };

/**
 * Recovery from failed upgrades, killed processes, killed VMs and a reboot of the node. One host, which was made with Debian 12,
 * survives all of it.
 */
describe('recovery', { timeout: 2_400_000 }, () => {
  const cleanUp: (() => Promise<void>)[] = [];
  let broker: BrokerProcess;
  let credentials: Credentials;
  let docker: Docker;

  const containers = async () => (await docker.run(['ps', '-a', '--format', '{{.Names}} {{.State}}'])).stdout;
  const engineId = async () => (await docker.run(['info', '--format', '{{.ID}}'])).stdout.trim();
  /** Without the jail's process of each VM, whose command line contains the same name. */
  const vms = async () =>
    (await processesWith(`berth-${await broker.site()}-`)).filter(({ command }) =>
      command.startsWith('/usr/bin/qemu-system'),
    );
  const engineIsBack = () =>
    eventually('the engine answers again', async () => (await docker.run(['version'])).code === 0, {
      deadlineMs: 400_000,
      everyMs: 1_000,
    });
  let idAtFirst = '';
  const halted = async () => {
    const [host] = await (await connectPlatform(broker.settings)).hosts();
    return host?.halted;
  };

  const page = async () => {
    const [port = ''] = credentials.published_ports.split('-');
    const { hostname } = new URL(credentials.docker_host.replace('tcp:', 'http:'));
    return (await fetch(`http://${hostname}:${port}/`, { signal: AbortSignal.timeout(5_000) })).text();
  };
  /** What an upgrade must leave as it is. */
  const lasting = async () => ({
    containers: await containers(),
    file: (await docker.run(['exec', 'lasting', '/bin/cat', '/tmp/file', '/data/file'])).stdout,
    network: (await docker.run(['network', 'inspect', '--format', '{{.Id}} {{.IPAM.Config}}', 'app'])).stdout,
    page: await page(),
    engineId: await engineId(),
  });
  const engineVersion = async () =>
    (await docker.run(['version', '--format', '{{.Server.Version}}'])).stdout.trim();
  const catalog = () => path.join(broker.stateDirectory, 'catalog.yaml');
  let usualCatalog = '';

  beforeAll(async () => {
    await testImage('bookworm');
    // Without a reserve, no host is halted before the disk is full.
    broker = await makeBrokerProcess(1, { BERTH_DISK_RESERVE_MIB: '0' });
    const hostsDisk = await mountHostsDisk();
    cleanUp.push(
      () => unmountHostsDisk(hostsDisk),
      () => broker.dispose(),
    );
    await symlink(hostsDisk, path.join(broker.stateDirectory, 'hosts'));
    // Without a template, which would replace the other suite's in the cache of all tests.
    usualCatalog = await readFile(catalog(), 'utf8');
    // The first plan; the other one never has a template.
    await writeFile(catalog(), usualCatalog.replace('"free":true', '"free":true,"template":"never"'));
    await broker.start(former);
    expect((await broker.create('survivor', 'org')).body).not.toMatchObject({ state: 'failed' });
    const bound = await broker.bind('survivor', 'binding');
    expect(bound.status).toBe(201);
    credentials = bound.body.credentials;
    docker = await dockerFor(credentials);
    cleanUp.push(() => docker.dispose());
    const imported = await docker.run(['import', '-', 'busybox:test'], await busyboxTree());
    expect(imported.code, imported.stderr).toBe(0);
    expect((await docker.run(['network', 'create', 'app'])).code).toBe(0);
    const [port = ''] = credentials.published_ports.split('-');
    const run = await docker.run([
      ...['run', '-d', '--name', 'lasting', '--restart', 'always', '--network', 'app', '-p', `${port}:80`],
      ...['-v', 'data:/data', 'busybox:test', '/bin/httpd', '-f', '-p', '80', '-h', '/www'],
    ]);
    expect(run.code, run.stderr).toBe(0);
    // A killed VM loses unwritten data: without this, up to five seconds, and with them the engine's record that the
    // container is to be restarted.
    const script = 'echo kept >/tmp/file; echo kept >/data/file; /bin/busybox sync';
    const written = await docker.run(['exec', 'lasting', '/bin/sh', '-c', script]);
    expect(written.code, written.stderr).toBe(0);
    idAtFirst = await engineId();
  }, 1_200_000);

  afterAll(async () => {
    for (const act of cleanUp.reverse()) await act();
  }, 300_000);

  it('upgrade: a host of Debian 12 returns to it with all it had if the new image does not boot', async () => {
    expect(await engineVersion()).toMatch(/^20\.10\./);
    expect(idAtFirst).toMatch(/^([A-Z2-7]{4}:){11}/);
    const before = await lasting();
    expect(before).toMatchObject({ containers: 'lasting running\n', file: 'kept\nkept\n' });
    expect(before.page).toContain('hello');
    await broker.interrupt();
    const images = path.join(broker.stateDirectory, 'images');
    const shared = await realpath(images);
    await rm(images);
    const version = await installBrokenImage(images, [await testImage(), await testImage('bookworm')]);
    await broker.start();
    await eventually('the upgrade is offered', async () => (await offeredVersion()) === version);

    const upgraded = await broker.upgrade('survivor', version);
    expect(upgraded.body).toMatchObject({ state: 'failed', instance_usable: true });
    await engineIsBack();
    expect(await engineVersion()).toMatch(/^20\.10\./);
    await eventually('the container runs again', async () => (await containers()) === 'lasting running\n');
    expect(await lasting()).toEqual(before);

    await broker.interrupt();
    await rm(images, { recursive: true });
    await symlink(shared, images);
  });

  // Fails if the initrd does not write the id of the engine's former key to `engine-id`.
  it('upgrade: a host of Debian 12 changes to Debian 13 with containers, data, network, port and engine id', async () => {
    const version = imageVersion((await testImage()).digest);
    await writeFile(catalog(), usualCatalog);
    await broker.start();
    const before = await lasting();
    await eventually('the upgrade is offered', async () => (await offeredVersion()) === version);
    expect((await broker.upgrade('survivor', version)).body).toMatchObject({ state: 'succeeded' });
    expect(await engineVersion()).toMatch(/^26\.1\./);
    await eventually('the container runs again', async () => (await containers()) === 'lasting running\n');
    expect(await lasting()).toEqual(before);
    const run = await docker.run('run --rm -v data:/data busybox:test /bin/cat /data/file'.split(' '));
    expect(run.stdout, run.stderr).toBe('kept\n');
  });

  it('Ctrl-C: stops the processes; the host keeps running and is adopted by the next start', async () => {
    const [before] = await vms();
    await broker.interrupt();
    expect((await vms()).map(({ pid }) => pid)).toEqual([before?.pid]);
    expect((await docker.run(['ps'])).code).not.toBe(0);
    await broker.start();
    expect(broker.output()).toContain('1 running hosts adopted');
    expect(await containers()).toBe('lasting running\n');
    expect((await vms()).map(({ pid }) => pid)).toEqual([before?.pid]);
  });

  async function offeredVersion(): Promise<string | undefined> {
    const { body } = await broker.ask<{
      services: { plans: { maintenance_info?: { version: string } }[] }[];
    }>('GET', '/v2/catalog');
    return body.services[0]?.plans[0]?.maintenance_info?.version;
  }

  /** As after an update of Berth to another recipe: the image that is installed is a former one. */
  async function replaceRecipe(): Promise<() => Promise<void>> {
    const images = path.join(broker.stateDirectory, 'images');
    const shared = await realpath(images);
    const { digest, directory } = await testImage();
    await rm(images);
    await cp(directory, path.join(images, digest), { recursive: true });
    const record = await readImageRecord(directory);
    await writeImageRecord(path.join(images, digest), { ...record, recipe: 'former' });
    return async () => {
      await rm(images, { recursive: true });
      await symlink(shared, images);
    };
  }

  // Fails if the supervisor builds the image before it starts the processes.
  it('start after an update of Berth: while the image is built, hosts can be reached and made', async () => {
    await broker.interrupt();
    const restoreRecipe = await replaceRecipe();
    const from = broker.output().length;
    await broker.start();
    const said = () => broker.output().slice(from);
    await eventually('the image is being built', () => said().includes('building the guest image'));
    // It never ends.
    for (const { pid } of await processesWith(`${broker.stateDirectory}/images/build-`)) {
      process.kill(pid, 'SIGSTOP');
    }
    expect(await containers()).toBe('lasting running\n');
    expect((await broker.create('meanwhile', 'org-3')).status).toBe(201);
    expect((await broker.remove('meanwhile')).status).toBe(200);
    await broker.interrupt();
    expect(await processesWith(`${broker.stateDirectory}/images/build-`)).toEqual([]);
    await restoreRecipe();
    await broker.start();
    expect(await containers()).toBe('lasting running\n');
  });

  it('SIGKILL of every process: the next start adopts the same host', async () => {
    const [before] = await vms();
    await broker.kill();
    await broker.start();
    expect(await containers()).toBe('lasting running\n');
    expect((await vms()).map(({ pid }) => pid)).toEqual([before?.pid]);
  });

  // Fails without the controller of halted hosts: nothing shows it, and the VM stays stopped.
  it('full disk: a VM with a failed write is shown as halted, and continues once there is room', async () => {
    const filler = path.join(broker.stateDirectory, 'hosts/filler');
    await execute('dd', ['if=/dev/zero', `of=${filler}`, 'bs=1M', 'status=none']).catch(() => undefined);
    // Zeros would take no space: QEMU detects them.
    const fill = '/bin/busybox dd if=/dev/urandom of=/tmp/fill bs=1M count=64 conv=fsync';
    const write = docker.follow(['exec', 'lasting', ...fill.split(' ')]);
    try {
      await eventually('the failed write is shown', async () => (await halted()) === 'io-error', {
        deadlineMs: 120_000,
      });
    } finally {
      await rm(filler);
      write.kill();
    }
    await eventually('the VM continues', async () => (await halted()) === undefined, { deadlineMs: 120_000 });
    await engineIsBack();
    expect(await containers()).toBe('lasting running\n');
  });

  it('SIGKILL of a VM: it is restarted from its own disk, with its containers', async () => {
    const [before] = await vms();
    process.kill(before?.pid ?? 0, 'SIGKILL');
    await eventually(
      'the VM is restarted',
      async () => {
        const [now] = await vms();
        return now !== undefined && now.pid !== before?.pid;
      },
      { deadlineMs: 60_000 },
    );
    await engineIsBack();
    await eventually('the container runs again', async () => (await containers()) === 'lasting running\n', {
      deadlineMs: 120_000,
      everyMs: 1_000,
    });
    const kept = await docker.run(['exec', 'lasting', '/bin/cat', '/tmp/file']);
    expect(kept.stdout, kept.stderr).toBe('kept\n');
    // It has the same identity as before, not that of the template.
    expect(await engineId()).toBe(idAtFirst);
  });

  it('reboot of the node: the host boots again, with its containers', async () => {
    const site = await broker.site();
    await broker.kill();
    for (const { pid } of await vms()) process.kill(pid, 'SIGKILL');
    await eventually('no VM runs', async () => (await vms()).length === 0);
    await removeWhatARebootRemoves(site, broker.stateDirectory);

    await broker.start();
    await engineIsBack();
    await eventually('the container runs again', async () => (await containers()) === 'lasting running\n', {
      deadlineMs: 120_000,
      everyMs: 1_000,
    });
    expect(await engineId()).toBe(idAtFirst);
  });

  it('SIGKILL during a create: it succeeds after the next start, and the deletes leave nothing', async () => {
    const created = broker.create('interrupted', 'org-2').catch(() => undefined);
    await eventually('the VM of the create is started', async () => (await vms()).length > 1, {
      everyMs: 5,
    });
    await broker.kill();
    await created;
    await broker.start();
    const ready = await eventually(
      'the create has ended',
      async () => {
        const { body } = await broker.ask('GET', '/v2/service_instances/interrupted/last_operation');
        return body['state'] === 'in progress' ? undefined : body['state'];
      },
      { deadlineMs: 300_000, everyMs: 250 },
    );
    expect(ready).toBe('succeeded');
    expect((await vms()).length).toBe(2);
    expect((await broker.remove('interrupted')).status).toBe(200);
    expect((await broker.remove('survivor')).status).toBe(200);
    expect(await residueOf(await broker.site())).toEqual([]);
  });
});
