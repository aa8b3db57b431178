import { execFile } from 'node:child_process';
import { randomBytes, randomUUID, X509Certificate } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { noRegistries, type HostSpec } from '../../../src/core/hypervisor/host-spec.ts';
import type { Hypervisor } from '../../../src/core/hypervisor/hypervisor.ts';
import { busyboxTree } from '../../../tools/lib/docker.ts';
import { residueOf } from '../../../tools/lib/residue.ts';
import type { GuestImage } from '../../../src/hypervisors/qemu/image/guest-image.ts';
import { imageVersion } from '../../../src/hypervisors/qemu/image/image-version.ts';
import { createQemuHypervisor } from '../../../src/hypervisors/qemu/qemu.ts';
import { createCertificateAuthority } from '../../../src/certificates/ca.ts';
import { destroyHosts } from '../../support/destroy-hosts.ts';
import { bindMounts, look, tamper, untouched } from '../../support/engine-root.ts';
import { eventually } from '../../support/eventually.ts';
import { silentLogger } from '../../support/logger.ts';
import { testSlot } from '../../support/test-slot.ts';
import {
  separateTemplates,
  makeStateDirectory,
  type QemuTestOptions,
  testImage,
} from '../../support/vm-cache.ts';

/** Updates of a host that is in use: it is restored from a template of Debian 12, and changes to Debian 13 and back. */
const site = randomBytes(2).toString('hex');
const bootMs = 300_000;
const plan = { planName: 'small', shape: { vcpus: 1, memoryMib: 768, diskGib: 4 } };
const spec: HostSpec = {
  hostId: randomUUID(),
  slot: 1,
  ...plan,
  publishedPorts: { first: 19_050 + testSlot * 100, count: 2 },
  egress: { kind: 'none' },
  registries: noRegistries,
};
const webPort = String(spec.publishedPorts.first);

let options: QemuTestOptions;
let newer: GuestImage;
let state: Awaited<ReturnType<typeof makeStateDirectory>>;
let dockerHome: string;
let driver: Hypervisor;
let engine = '';
let older = '';
let engineIdAtFirst = '';
/** Of the data disk, in MiB. */
let sizeAtFirst = 0;

beforeAll(async () => {
  state = await makeStateDirectory('templates-bookworm');
  dockerHome = await mkdtemp(path.join(tmpdir(), 'berth-docker-'));
  const former = await testImage('bookworm');
  older = imageVersion(former.digest);
  newer = await testImage();
  const images = path.join(state.directory, 'images');
  await rm(images);
  await mkdir(images);
  for (const { directory, digest } of [former, newer]) await symlink(directory, path.join(images, digest));
  options = {
    site,
    stateDirectory: state.directory,
    runDirectory: `/run/berth-${site}`,
    libexecDirectory: path.join(import.meta.dirname, '..', '..', '..', 'libexec'),
    image: former,
    ensureImage: () => testImage('bookworm'),
    accelerator: 'tcg',
    hostNetwork: `10.214.${testSlot}.0/24`,
    firstUid: 600_016 + testSlot * 1000,
    gatewayUid: 600_001 + testSlot * 1000,
    dnsServers: [],
    denyNetworks: [],
    hostLimits: { connections: 4096, bandwidthMbit: 1000 },
    pageSharing: 'template',
    room: { vcpus: 16, memoryMib: 32_768, diskGib: 1024 },
    loadAhead: false,
    logger: silentLogger,
  };
  driver = await createQemuHypervisor(options);
  await driver.open();
  await driver.makeTemplate(() => undefined, AbortSignal.timeout(900_000));
  await separateTemplates(state.directory);
}, 900_000);

afterAll(async () => {
  await driver.destroy(spec.hostId);
  await driver.close();
  const left = await residueOf(site);
  await destroyHosts(site);
  await state.remove();
  await rm(dockerHome, { recursive: true, force: true });
  expect(left).toEqual([]);
}, 300_000);

async function bringUp(as: HostSpec): Promise<void> {
  await driver.prepare(as);
  await driver.start(as);
  const patience = { deadlineMs: bootMs, everyMs: 200 };
  await eventually('the guest has its identity', () => driver.identify(as), patience);
  await eventually('the engine has its registries', () => driver.configureRegistries(as), patience);
  const { host, port } = await driver.connect(as);
  engine = `tcp://${host}:${port}`;
  await eventually('the engine answers', () => driver.engineAnswers(as), patience);
  await eventually('the containers run', () => driver.restartContainers(as.hostId), patience);
}

async function docker(...args: readonly string[]): Promise<string> {
  return dockerWith(undefined, ...args);
}

function dockerWith(input: Buffer | undefined, ...args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const env = { PATH: process.env['PATH'], HOME: dockerHome, DOCKER_HOST: engine };
    const child = execFile('docker', [...args], { env, timeout: 300_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout.trim());
      else reject(new Error(`docker ${args.join(' ')}: ${stderr}`));
    });
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

/** Uses a container that runs already, because an emulated engine takes long to make one. */
const inside = (command: string) => docker('exec', 'web', '/bin/sh', '-c', command);
const page = async () => {
  const { hostname } = new URL(engine.replace('tcp:', 'http:'));
  return (await fetch(`http://${hostname}:${webPort}/`, { signal: AbortSignal.timeout(5_000) })).text();
};
const size = async () => Number(/\s(\d+)\s+\d+\s+\d+\s+\d+%/.exec(await inside('/bin/busybox df -m /'))?.[1]);
const engineVersion = () => docker('version', '--format', '{{.Server.Version}}');
const engineId = () => docker('info', '--format', '{{.ID}}');
const running = async () => (await docker('ps', '--format', '{{.Names}}')).split('\n').sort();

it(
  'reshape: a host of Debian 12 boots Debian 13 from its disk, with its containers and engine id',
  { timeout: 6 * bootMs },
  async () => {
    await bringUp(spec);
    expect(await driver.startedFrom(spec.hostId)).toBe('template');
    await dockerWith(await busyboxTree(), 'import', '-', 'busybox:test');
    const web = ['/bin/httpd', '-f', '-p', '80', '-h', '/www'];
    await docker('run', '-d', '--name', 'web', '-p', `${webPort}:80`, ...bindMounts, 'busybox:test', ...web);
    const sleep = ['busybox:test', '/bin/sleep', '9999'];
    await docker('run', '-d', '--name', 'other', '--network', 'container:web', ...sleep);
    await docker('run', '-d', '--name', 'always', '--restart', 'always', ...sleep);
    const data = ['-v', 'data:/data', 'busybox:test'];
    await docker('run', '--name', 'ended', ...data, '/bin/sh', '-c', 'echo kept >/data/file');
    expect(await page()).toContain('hello');
    engineIdAtFirst = await engineId();
    // The fingerprint of the key that the host got when it was restored.
    expect(engineIdAtFirst).toMatch(/^([A-Z2-7]{4}:){11}[A-Z2-7]{4}$/);
    expect(await engineVersion()).toMatch(/^20\.10\./);

    await driver.close();
    driver = await createQemuHypervisor({ ...options, ensureImage: () => Promise.resolve(newer) });
    await driver.open();
    expect(driver.imageVersion()).toBe(older);
    await driver.installImage(() => undefined, AbortSignal.timeout(60_000));
    // Not before its template is made, also after a restart.
    expect(driver.imageVersion()).toBe(older);
    await driver.close();
    driver = await createQemuHypervisor({
      ...options,
      image: newer,
      ensureImage: () => Promise.resolve(newer),
    });
    await driver.open();
    await driver.installImage(() => undefined, AbortSignal.timeout(60_000));
    expect(driver.imageVersion()).toBe(older);
    const other: HostSpec = {
      ...spec,
      hostId: randomUUID(),
      slot: 2,
      publishedPorts: { first: 0, count: 0 },
    };
    await driver.prepare(other);
    await driver.start(other);
    expect(await driver.startedFrom(other.hostId)).toBe('template');
    expect(await driver.imageVersionOf(other.hostId)).toBe(older);
    await driver.destroy(other.hostId);
    await driver.makeTemplate(() => undefined, AbortSignal.timeout(900_000));
    // Installed, but not used by this host.
    expect(driver.imageVersion()).toBe(imageVersion(newer.digest));
    expect(await driver.imageVersionOf(spec.hostId)).toBe(older);
    await driver.connect(spec);
    expect(await page()).toContain('hello');
    expect(await driver.verify(spec.hostId)).toEqual([]);
    expect(await inside('cat /proc/cmdline')).toContain(`berth.image=${older}`);
    sizeAtFirst = await size();
    await inside(tamper);
    expect(await inside(look)).not.toBe(untouched);

    const target: HostSpec = {
      ...spec,
      shape: { vcpus: 2, memoryMib: 1024, diskGib: 6 },
      imageVersion: imageVersion(newer.digest),
      registries: { ...noRegistries, mirrors: ['https://mirror.example.org'] },
    };
    const begun = performance.now();
    await driver.stop(spec.hostId);
    const stopped = performance.now();
    await driver.reshape(target);
    await bringUp(target);
    const seconds = (from: number, to: number) => ((to - from) / 1000).toFixed(1);
    process.stderr.write(
      `update: ${seconds(begun, performance.now())} s, of which ${seconds(begun, stopped)} s to stop\n`,
    );
    expect(await driver.imageVersionOf(spec.hostId)).toBe(driver.imageVersion());
    expect(await inside('cat /proc/cmdline')).toContain(`berth.image=${driver.imageVersion()}`);
    expect(await engineVersion()).toMatch(/^26\.1\./);
    expect(await engineId()).toBe(engineIdAtFirst);
    expect(await running()).toEqual(['always', 'other', 'web']);
    expect(await docker('run', '--rm', ...data, '/bin/cat', '/data/file')).toBe('kept');
    expect(await page()).toContain('hello');
    expect(await inside(look)).toBe(untouched);
    expect(await size()).toBeGreaterThan(sizeAtFirst * 1.4);
    expect(await docker('info', '--format', '{{.NCPU}} {{.RegistryConfig.Mirrors}}')).toBe(
      '2 [https://mirror.example.org/]',
    );
    expect(await driver.verify(spec.hostId)).toEqual([]);
  },
);

it(
  "configureRegistries: adds and removes the engine's registries while containers run",
  { timeout: 4 * bootMs },
  async () => {
    const startedAt = () => docker('inspect', '--format', '{{.State.StartedAt}}', 'web');
    const since = await startedAt();

    const { certificatePem } = await createCertificateAuthority({ commonName: 'registry', validForDays: 10 });
    const registries = {
      mirrors: ['https://mirror.example.org'],
      insecure: ['registry.example.org:5000', '10.9.0.0/16'],
      authorities: [
        { host: 'private.example.org:8443', certificate: certificatePem },
        { host: 'private.example.org:8443', certificate: certificatePem },
      ],
    };
    const config = async () =>
      JSON.parse(await docker('info', '--format', '{{json .RegistryConfig}}')) as object;
    expect(await driver.configureRegistries({ ...spec, registries })).toBe(true);
    // The engine reloads its settings asynchronously.
    await eventually('the engine has the insecure registry', async () =>
      JSON.stringify(await config()).includes('registry.example.org'),
    );
    expect(await config()).toMatchObject({
      Mirrors: ['https://mirror.example.org/'],
      InsecureRegistryCIDRs: expect.arrayContaining(['10.9.0.0/16']) as string[],
      IndexConfigs: { 'registry.example.org:5000': { Secure: false } },
    });
    const mounted = ['run', '--rm', '-v', '/etc/docker/certs.d:/certs', 'busybox:test'];
    const authorities = await docker(...mounted, '/bin/cat', '/certs/private.example.org:8443/ca.crt');
    const certificates = authorities.split(/(?<=-----END CERTIFICATE-----)\n*/).filter(Boolean);
    expect(certificates.map((pem) => new X509Certificate(pem).subject)).toEqual([
      'CN=registry',
      'CN=registry',
    ]);

    expect(await driver.configureRegistries(spec)).toBe(true);
    await eventually(
      'the engine has no mirror',
      async () => !JSON.stringify(await config()).includes('mirror.example'),
    );
    expect(await docker(...mounted, '/bin/ls', '/certs')).toBe('');
    expect(await startedAt()).toBe(since);
    expect(await driver.verify(spec.hostId)).toEqual([]);
  },
);

it(
  'reshape: the host boots Debian 12 again, as after an update that failed',
  { timeout: 4 * bootMs },
  async () => {
    await docker('stop', '-t', '0', 'other');
    // The engine lists a container for a moment after it has answered that it is stopped.
    await eventually('it is not listed', async () => !(await running()).includes('other'));
    await driver.stop(spec.hostId);
    await driver.reshape({ ...spec, imageVersion: older });
    await bringUp({ ...spec, imageVersion: older });
    expect(await inside('cat /proc/cmdline')).toContain(`berth.image=${older}`);
    expect(await engineVersion()).toMatch(/^20\.10\./);
    expect(await engineId()).toBe(engineIdAtFirst);
    expect(await running()).toEqual(['always', 'web']);
    expect(await page()).toContain('hello');
    expect(await docker('info', '--format', '{{.NCPU}} {{.RegistryConfig.Mirrors}}')).toBe('1 []');
    expect(await size()).toBeGreaterThan(sizeAtFirst * 1.4);
    expect(await readdir(path.join(state.directory, 'images'))).toHaveLength(2);
  },
);
