import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { noRegistries, type HostSpec } from '../../../src/core/hypervisor/host-spec.ts';
import type { Hypervisor } from '../../../src/core/hypervisor/hypervisor.ts';
import { HostDisputedError } from '../../../src/core/hypervisor/host-disputed-error.ts';
import { HypervisorError } from '../../../src/core/hypervisor/hypervisor-error.ts';
import { openHostFiles } from '../../../src/hypervisors/simulated/host-files.ts';
import { createSimulatedHypervisor } from '../../../src/hypervisors/simulated/simulated.ts';
import type { Faults } from '../../../src/hypervisors/with-faults.ts';

const shape = { vcpus: 2, memoryMib: 768, diskGib: 4 };

let lastSlot = 0;
const newSpec = (): HostSpec => ({
  hostId: randomUUID(),
  slot: ++lastSlot,
  planName: 'small',
  shape,
  publishedPorts: { first: 20_000, count: 2 },
  egress: { kind: 'none' },
  registries: noRegistries,
});

describe('the simulated driver', () => {
  let stateDirectory: string;
  let opened: Hypervisor[];
  let blockers: Server[];

  beforeEach(async () => {
    stateDirectory = await mkdtemp(path.join(tmpdir(), 'berth-simulated-'));
    opened = [];
    blockers = [];
  });
  afterEach(async () => {
    for (const driver of opened) await driver.close();
    for (const blocker of blockers) blocker.close();
    await rm(stateDirectory, { recursive: true });
  });

  const open = async (faults?: Faults): Promise<Hypervisor> => {
    const driver = createSimulatedHypervisor({ stateDirectory, ...(faults === undefined ? {} : { faults }) });
    opened.push(driver);
    await driver.open();
    return driver;
  };

  // Under one lock from the first act to the last, as in an operation.
  const bringUp = (driver: Hypervisor, spec: HostSpec) =>
    driver.withHostLock(spec.hostId, async () => {
      await driver.prepare(spec);
      await driver.start(spec);
      expect(await driver.identify(spec)).toBe(true);
      const { host, port } = await driver.connect(spec);
      expect(await driver.engineAnswers(spec)).toBe(true);
      return { port, url: `http://${host}:${port}` };
    });

  const readVm = async (hostId: string) => {
    const vm = (await openHostFiles(stateDirectory).readHost(hostId))?.vm;
    if (vm === undefined) throw new Error('no VM is on record');
    return vm;
  };

  const stateOf = async (driver: Hypervisor, { hostId }: HostSpec) =>
    (await driver.list()).find((host) => host.hostId === hostId)?.state;

  const docker = (url: string, ...args: string[]) =>
    promisify(execFile)('docker', args, {
      env: { PATH: process.env['PATH'], DOCKER_HOST: url.replace('http:', 'tcp:'), HOME: stateDirectory },
      timeout: 20_000,
    });

  it('simulated engine: answers the real docker CLI, and says that it is simulated', async () => {
    const spec = newSpec();
    const { url } = await bringUp(await open(), spec);
    expect((await docker(url, 'version')).stdout).toContain('26.1.5+simulated');
    const info = await docker(url, 'info');
    expect(info.stdout).toContain(`ID: ${spec.hostId}`);
    expect(info.stderr).toContain('WARNING: This host is simulated');
    expect((await docker(url, 'ps', '-a')).stdout).toMatch(/^CONTAINER ID/);
    expect((await docker(url, 'images')).stdout).toMatch(/REPOSITORY|IMAGE/);
    await docker(url, 'volume', 'create', 'data');
    expect((await docker(url, 'volume', 'ls')).stdout).toContain('data');
  });

  it('simulated engine: answers unsupported requests with 501, and says that it is simulated', async () => {
    const { url } = await bringUp(await open(), newSpec());
    await expect(docker(url, 'run', '--rm', 'busybox')).rejects.toMatchObject({
      stderr: expect.stringContaining(
        "this host is simulated: it can't do POST /containers/create",
      ) as string,
    });
    const archive = path.join(stateDirectory, 'image.tar');
    await writeFile(archive, Buffer.alloc(20 * 1024 * 1024));
    await expect(docker(url, 'load', '-i', archive)).rejects.toMatchObject({
      stderr: expect.stringContaining('this host is simulated') as string,
    });
    const other = await fetch(`${url}/swarm`);
    expect(other.status).toBe(501);
    expect(other.headers.get('server')).toContain('simulated');
  });

  it('simulated engine: refuses volumes without a valid name, also in a long body', async () => {
    const { url } = await bringUp(await open(), newSpec());
    const long = JSON.stringify({ Name: 'data', Driver: 'x'.repeat(200_000) });
    for (const body of ['', '{', '{}', '{"Name":"../x"}', '{"Name":7}', 'null', long]) {
      const response = await fetch(`${url}/volumes/create`, { method: 'POST', body });
      expect(response.status, body.slice(0, 20)).toBe(400);
    }
  });

  it('simulated engine: does not answer before the host is connected', async () => {
    const driver = await open();
    const spec = newSpec();
    await driver.prepare(spec);
    await driver.start(spec);
    await expect(driver.connect(spec)).rejects.toThrow(/no identity yet/);
    await driver.identify(spec);
    expect(await driver.engineAnswers(spec)).toBe(false);
  });

  it('simulated driver: makes 200 hosts at once', async () => {
    const driver = await open();
    const specs = Array.from({ length: 200 }, newSpec);
    const made = await Promise.all(specs.map((spec) => bringUp(driver, spec)));
    expect(new Set(made.map(({ port }) => port)).size).toBe(200);
    expect((await driver.list()).filter(({ state }) => state === 'running')).toHaveLength(200);
    await Promise.all(specs.map(({ hostId }) => driver.destroy(hostId)));
    expect(await readdir(path.join(stateDirectory, 'simulated', 'hosts'))).toEqual([]);
  });

  it('simulated driver: a host whose port was taken while no worker ran is stopped', async () => {
    const spec = newSpec();
    const first = await open();
    const { port } = await bringUp(first, spec);
    await first.close();
    const blocker = createServer((_request, response) => response.end('not a host'));
    blockers.push(blocker);
    await new Promise<void>((resolve) => blocker.listen(port, '127.0.0.1', resolve));

    const second = await open();
    expect(await stateOf(second, spec)).toBe('stopped');
    expect((await bringUp(second, spec)).port).not.toBe(port);
  });

  // Fails if it stays parked when its engine is not reachable at first: its guest would never be identified.
  it('simulated driver: starts a parked host whose port is free only at the second look', async () => {
    const former = await open();
    const spec = newSpec();
    await former.makeTemplate(() => undefined, new AbortController().signal);
    await former.prepare(spec);
    expect(await former.park(spec)).toBe(true);
    const { port } = await readVm(spec.hostId);
    await former.close();
    let looks = 0;
    const blocker = createServer((_request, response) => {
      looks += 1;
      if (looks === 2) blocker.close();
      response.writeHead(404, { connection: 'close' }).end();
    });
    blockers.push(blocker);
    await new Promise<void>((resolve) => blocker.listen(port, '127.0.0.1', resolve));
    const driver = createSimulatedHypervisor({ stateDirectory });
    opened.push(driver);
    await driver.start(spec);
    expect(await driver.identify(spec)).toBe(true);
  });

  it('simulated driver: resumes a host that another worker suspended', async () => {
    const spec = newSpec();
    const [one, other] = [await open(), await open()];
    const { port, url } = await bringUp(one, spec);
    await other.suspend(spec.hostId);
    await expect(fetch(`${url}/_ping`)).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } });
    await other.resume(spec);
    expect((await other.connect(spec)).port).toBe(port);
    expect(await other.engineAnswers(spec)).toBe(true);
  });

  it('simulated driver: a suspended host whose port was taken is stopped', async () => {
    const spec = newSpec();
    const driver = await open();
    const { port } = await bringUp(driver, spec);
    await driver.suspend(spec.hostId);
    const blocker = createServer((_request, response) => response.end('not a host'));
    blockers.push(blocker);
    await new Promise<void>((resolve) => blocker.listen(port, '127.0.0.1', resolve));

    await expect(driver.resume(spec)).rejects.toThrow(HypervisorError);
    expect(await stateOf(driver, spec)).toBe('stopped');
    expect((await bringUp(driver, spec)).port).not.toBe(port);
  });

  it('simulated driver: two workers share the hosts', async () => {
    const [one, other] = [await open(), await open()];
    const [stopped, destroyed, left] = [newSpec(), newSpec(), newSpec()];
    const served = await bringUp(one, stopped);
    const alsoServed = await bringUp(one, destroyed);
    await bringUp(one, left);

    expect(await stateOf(other, stopped)).toBe('running');
    expect(await bringUp(other, stopped)).toEqual(served);
    await other.stop(stopped.hostId);
    await other.destroy(destroyed.hostId);
    for (const { url } of [served, alsoServed]) {
      await expect(fetch(`${url}/_ping`)).rejects.toMatchObject({ cause: { code: 'ECONNREFUSED' } });
    }
    expect(await stateOf(one, stopped)).toBe('stopped');

    await one.close();
    // The other worker serves it from here on.
    expect(await stateOf(other, left)).toBe('running');
    await bringUp(other, left);
  });

  it('simulated driver: a fault fails the call, and nothing is half done', async () => {
    const spec = newSpec();
    let starts = 0;
    const driver = await open({
      before(act, hostId) {
        if (act === 'start' && hostId === spec.hostId && ++starts === 1) {
          throw new HypervisorError('the VM is on fire');
        }
      },
    });
    await driver.prepare(spec);
    await expect(driver.start(spec)).rejects.toThrow('the VM is on fire');
    expect(await stateOf(driver, spec)).toBe('stopped');
    await bringUp(driver, spec);
  });

  it('simulated driver: destroys a host whose file is damaged only by its id, and names a damaged disk', async () => {
    const driver = await open();
    const [damagedFile, damagedDisk] = [newSpec(), newSpec()];
    for (const spec of [damagedFile, damagedDisk]) await driver.prepare(spec);
    const fileOf = ({ hostId }: HostSpec, file: string) =>
      path.join(stateDirectory, 'simulated', 'hosts', hostId, file);
    await writeFile(fileOf(damagedFile, 'host.json'), '{');
    await writeFile(fileOf(damagedDisk, 'disk.json'), '{');

    expect(await stateOf(driver, damagedFile)).toBe('unreadable');
    await expect(driver.destroy(damagedFile)).rejects.toThrow(HostDisputedError);
    await expect(driver.start(damagedDisk)).rejects.toThrow(/disk\.json is damaged/);
    for (const { hostId } of [damagedFile, damagedDisk]) await driver.destroy(hostId);
    expect(await driver.list()).toEqual([]);
  });

  it('simulated driver: makes the template again for another image only, and reports it', async () => {
    const reports: string[] = [];
    const make = async (imageVersion: string, ...plans: string[]) => {
      const restoredPlans = new Set(plans);
      const driver = createSimulatedHypervisor({ stateDirectory, imageVersion, restoredPlans });
      opened.push(driver);
      await driver.open();
      await driver.makeTemplate((progress) => reports.push(progress), AbortSignal.timeout(5000));
    };
    await make('1.0.0', 'small');
    await make('1.0.0', 'small', 'large');
    expect(reports).toHaveLength(1);
    await make('2.0.0', 'small', 'large');
    expect(reports).toEqual(Array(2).fill('Making the simulated template'));
  });
});
