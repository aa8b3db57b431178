import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { cp, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import {
  noRegistries,
  type Egress,
  type HostShape,
  type HostSpec,
} from '../../../src/core/hypervisor/host-spec.ts';
import { enginePort, type EngineAddress } from '../../../src/core/hypervisor/network.ts';
import type { Hypervisor } from '../../../src/core/hypervisor/hypervisor.ts';
import { residueOf } from '../../../tools/lib/residue.ts';
import { qemuProgram } from '../../../src/hypervisors/qemu/launch/arguments.ts';
import { readImage } from '../../../src/hypervisors/qemu/image/guest-image.ts';
import { layoutOf, type HostLayout } from '../../../src/hypervisors/qemu/layout.ts';
import { createQemuHypervisor } from '../../../src/hypervisors/qemu/qemu.ts';
import { destroyHosts } from '../../support/destroy-hosts.ts';
import { eventually } from '../../support/eventually.ts';
import { silentLogger } from '../../support/logger.ts';
import { testSlot } from '../../support/test-slot.ts';
import { makeStateDirectory, type QemuTestOptions, testImage } from '../../support/vm-cache.ts';
import { type Attacker, makeAttacker } from './attacker.ts';

const execute = promisify(execFile);
const small = { vcpus: 1, memoryMib: 768, diskGib: 4 };
const bootMs = 300_000;
/** The usual limit of the hosts' disks, which no other test reaches. */
export const diskRate = { mibPerSecond: 200, iops: 5_000 };

export interface TestHost {
  readonly spec: HostSpec;
  readonly layout: HostLayout;
  readonly engine: EngineAddress;
  /** Process id of its QEMU on the node. */
  pid(): Promise<number>;
  /** An attacker that is root in its guest. */
  attacker(): Promise<Attacker>;
  /** Runs a program in its network namespace as the node's root. */
  inNamespace(program: string, ...args: string[]): Promise<string>;
  /** Dropped packets by reason. */
  dropped(): Promise<Record<string, number>>;
}

export interface TestHosts {
  readonly driver: Hypervisor;
  readonly options: QemuTestOptions;
  make(spec?: { egress?: Egress; slot?: number }): Promise<TestHost>;
  newSpec(spec?: { egress?: Egress; slot?: number; shape?: HostShape }): HostSpec;
  /** Makes a parked host; {@link TestHosts.bringUp} claims it. */
  pool(): Promise<TestHost>;
  /** Starts a host until its engine answers. */
  bringUp(spec: HostSpec): Promise<TestHost>;
  /** Whether ports of the node lead to it. */
  isPublished(spec: HostSpec): Promise<boolean>;
  /** Descriptions of everything that is left on the node of a destroyed host. */
  residue(spec: HostSpec): Promise<string[]>;
  close(): Promise<void>;
}

/**
 * Real hosts of a separate installation, restored from the template of plan `small`.
 * @param settings.ownFiles uses copies of the cached image, template and empty disks, for tests that damage them.
 */
export async function makeHosts(
  settings: { ownFiles?: boolean; options?: Partial<QemuTestOptions> } = {},
): Promise<TestHosts> {
  const site = randomBytes(2).toString('hex');
  const state = await makeStateDirectory();
  let options: QemuTestOptions = {
    site,
    stateDirectory: state.directory,
    runDirectory: `/run/berth-${site}`,
    libexecDirectory: path.join(import.meta.dirname, '..', '..', '..', 'libexec'),
    image: await testImage(),
    ensureImage: () => testImage(),
    accelerator: 'tcg',
    hostNetwork: `10.211.${testSlot}.0/24`,
    firstUid: 610_016 + testSlot * 1000,
    gatewayUid: 610_001 + testSlot * 1000,
    dnsServers: [],
    denyNetworks: [],
    hostLimits: { connections: 4096, bandwidthMbit: 1000, disk: diskRate },
    pageSharing: 'template',
    room: { vcpus: 16, memoryMib: 32_768, diskGib: 1024 },
    loadAhead: false,
    logger: silentLogger,
    ...settings.options,
  };
  let driver = await createQemuHypervisor(options);
  await driver.open();
  await driver.makeTemplate(() => undefined, AbortSignal.timeout(900_000));
  if (settings.ownFiles === true) {
    const shared = path.join(state.directory, 'templates');
    const keys = (await readdir(shared, { withFileTypes: true })).filter((entry) => entry.isDirectory());
    await driver.close();
    const own = path.join(state.directory, 'own-templates');
    for (const { name } of keys) {
      const record = await readFile(path.join(shared, name, 'template.json'), 'utf8').catch(() => '');
      if (!record.includes(options.image.digest)) continue;
      await cp(path.join(shared, name), path.join(own, name), { recursive: true });
    }
    await rm(shared);
    await execute('mv', [own, shared]);
    for (const name of ['disks', path.join('images', options.image.digest)]) {
      const copy = path.join(state.directory, 'copy');
      await execute('cp', ['--archive', '--sparse=always', path.join(state.directory, name), copy]);
      const [top = ''] = name.split('/');
      await rm(path.join(state.directory, top));
      await mkdir(path.dirname(path.join(state.directory, name)), { recursive: true });
      await execute('mv', [copy, path.join(state.directory, name)]);
    }
    const images = path.join(state.directory, 'images');
    options = { ...options, image: await readImage(path.join(images, options.image.digest)) };
    driver = await createQemuHypervisor(options);
    await driver.open();
    await driver.makeTemplate(() => undefined, AbortSignal.timeout(900_000));
  }
  let slots = 0;

  const none: Egress = { kind: 'none' };
  const newSpec: TestHosts['newSpec'] = ({ egress = none, slot, shape = small } = {}) => {
    slots += 1;
    const own = slot ?? slots;
    return {
      hostId: randomUUID(),
      slot: own,
      planName: 'small',
      shape,
      publishedPorts: { first: 20_000 + testSlot * 500 + 4 * own, count: 4 },
      egress,
      registries: noRegistries,
    };
  };

  async function bringUp(spec: HostSpec): Promise<TestHost> {
    const deadline = { deadlineMs: bootMs, everyMs: 50 };
    await driver.prepare(spec);
    await driver.start(spec);
    await eventually('the guest has its identity', () => driver.identify(spec), deadline);
    await driver.connect(spec);
    await eventually('the engine answers', () => driver.engineAnswers(spec), deadline);
    return lookAt(spec);
  }

  function lookAt(spec: HostSpec): TestHost {
    const layout = layoutOf(options, spec.hostId, spec.slot);
    const engine = { host: layout.hostAddress, port: enginePort };
    let attacker: Promise<Attacker> | undefined;
    const inNamespace = async (program: string, ...args: string[]) =>
      (await execute('nsenter', [`--net=${layout.netnsPath}`, program, ...args])).stdout;
    return {
      spec,
      layout,
      engine,
      pid: () => pidOf(layout),
      attacker: () => (attacker ??= makeAttacker(engine)),
      inNamespace,
      async dropped() {
        const listing = JSON.parse(await inNamespace('nft', '-j', 'list', 'counters')) as {
          nftables: { counter?: { name: string; packets: number } }[];
        };
        const counts: Record<string, number> = {};
        for (const { counter } of listing.nftables) {
          const name = counter?.name.replace('dropped_', '') ?? '';
          counts[name] = (counts[name] ?? 0) + (counter?.packets ?? 0);
        }
        return counts;
      },
    };
  }

  async function isPublished({ hostId, slot }: HostSpec): Promise<boolean> {
    const { hostAddress } = layoutOf(options, hostId, slot);
    const { stdout } = await execute('nft', ['list', 'map', 'inet', `berth_${site}`, 'ports']);
    return new RegExp(`: ${hostAddress.replaceAll('.', '\\.')}\\b`).test(stdout);
  }

  const made: HostSpec[] = [];
  return {
    driver,
    options,
    newSpec,
    bringUp(spec) {
      made.push(spec);
      return bringUp(spec);
    },
    make(spec) {
      const own = newSpec(spec);
      made.push(own);
      return bringUp(own);
    },
    async pool() {
      const spec = newSpec();
      made.push(spec);
      await driver.prepare(spec);
      if (!(await driver.park(spec))) throw new Error('the host could not be parked');
      return lookAt(spec);
    },
    isPublished,
    residue: async (spec) => {
      const { hostId, slot } = spec;
      const layout = layoutOf(options, hostId, slot);
      const files = await execute('find', [
        ...[options.runDirectory, path.join(state.directory, 'hosts'), '/run/netns', '/sys/class/net'],
        ...['(', '-name', hostId, '-o', '-name', layout.netns, '-o', '-name', layout.veth, ')'],
      ]);
      return [
        ...files.stdout.split('\n').filter(Boolean),
        ...(await residueOf(site)).filter((line) => line.includes(hostId)),
        ...((await isPublished(spec)) ? [`published ports of ${layout.hostAddress}`] : []),
      ];
    },
    async close() {
      for (const { hostId } of made) await driver.destroy(hostId);
      await driver.close();
      const left = await residueOf(site);
      await destroyHosts(site);
      await state.remove();
      if (left.length > 0) throw new Error(`left behind: ${left.join('; ')}`);
    },
  };
}

async function pidOf(layout: HostLayout): Promise<number> {
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (command.startsWith(`${qemuProgram}\0`) && command.includes(`-${layout.id}\0`)) return Number(name);
  }
  throw new Error(`no QEMU of ${layout.id} runs`);
}
