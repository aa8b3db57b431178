import { execFile } from 'node:child_process';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import path from 'node:path';
import { promisify } from 'node:util';
import { noRegistries, type HostSpec } from '../../src/core/hypervisor/host-spec.ts';
import { leaseMs } from '../../src/core/lease-duration.ts';
import { createHostLocks } from '../../src/hypervisors/host-locks.ts';
import { newHostRecord, writeHostRecord } from '../../src/hypervisors/qemu/host-record.ts';
import { createHostNetworking } from '../../src/hypervisors/qemu/network/network.ts';
import { layoutOf } from '../../src/hypervisors/qemu/layout.ts';
import { createQemuHypervisor } from '../../src/hypervisors/qemu/qemu.ts';
import { destroyHosts } from '../support/destroy-hosts.ts';
import { silentLogger } from '../support/logger.ts';
import { residueOf } from '../../tools/lib/residue.ts';
import { testSlot } from '../support/test-slot.ts';
import { makeStateDirectory, type QemuTestOptions, testImage } from '../support/vm-cache.ts';
import { restoredPlans } from './harness.ts';
import { describeHypervisor } from './hypervisor.ts';

const execute = promisify(execFile);
const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };

describeHypervisor('qemu', { bootMs: 300_000, templateMs: 900_000 }, async () => {
  const site = randomBytes(2).toString('hex');
  const state = await makeStateDirectory();
  const options: QemuTestOptions = {
    site,
    stateDirectory: state.directory,
    runDirectory: `/run/berth-${site}`,
    libexecDirectory: path.join(import.meta.dirname, '..', '..', 'libexec'),
    image: await testImage(),
    ensureImage: () => testImage(),
    accelerator: 'tcg',
    hostNetwork: `10.211.${testSlot}.0/24`,
    firstUid: 610_016 + testSlot * 1000,
    gatewayUid: 610_001 + testSlot * 1000,
    dnsServers: [],
    denyNetworks: [],
    hostLimits: { connections: 4096, bandwidthMbit: 1000 },
    pageSharing: 'template',
    restoredPlans,
    room: { vcpus: 16, memoryMib: 32_768, diskGib: 1024 },
    loadAhead: false,
    logger: silentLogger,
  };
  const locks = createHostLocks(path.join(options.runDirectory, 'locks'), {
    patienceMs: leaseMs,
    logger: silentLogger,
  });
  const network = createHostNetworking(options, locks);
  const slots = new Map<string, number>();
  let slot = 0;

  const recordFile = ({ hostId, slot: at }: HostSpec) => layoutOf(options, hostId, at).record;

  async function changeMemoryRecord(spec: HostSpec, change: (text: string) => string): Promise<void> {
    const file = `${layoutOf(options, spec.hostId, spec.slot).directory}/memory.json`;
    const text = await readFile(file, 'utf8');
    if (change(text) === text) throw new Error(`${file} is not as expected`);
    await writeFile(file, change(text));
  }

  return {
    plan: { planName: 'small', shape },

    createDriver: () => createQemuHypervisor(options),

    newSpec() {
      slot += 1;
      const hostId = randomUUID();
      slots.set(hostId, slot);
      return {
        hostId,
        slot,
        planName: 'small',
        shape,
        publishedPorts: { first: 20_000 + testSlot * 500 + 4 * slot, count: 4 },
        egress: { kind: 'internet' },
        registries: noRegistries,
      };
    },

    askEngine: ({ host, port }, { method, path: target, body }) =>
      new Promise((resolve, reject) => {
        const sent = request(
          {
            host,
            port,
            method,
            path: target,
            agent: false,
            timeout: 10_000,
            headers: body === undefined ? {} : { 'content-type': 'application/json' },
          },
          (response) => {
            let text = '';
            response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
            response.on('end', () => {
              resolve({ status: response.statusCode ?? 0, body: text });
            });
          },
        );
        sent.on('timeout', () => sent.destroy(new Error('no answer')));
        sent.on('error', reject);
        sent.end(body);
      }),

    async killVm(hostId) {
      await execute('pkill', ['-KILL', '-f', `berth-${site}-${hostId}`]);
    },

    halfMade: [
      {
        name: 'a folder without a record',
        leave: async (spec) => {
          await mkdir(path.dirname(recordFile(spec)), { recursive: true });
        },
      },
      {
        name: 'a record that was not yet renamed',
        leave: async (spec) => {
          await mkdir(path.dirname(recordFile(spec)), { recursive: true });
          await writeFile(`${recordFile(spec)}.new`, '{"hostId":');
        },
      },
      {
        name: 'a record and a namespace with one link',
        leave: async (spec) => {
          const place = layoutOf(options, spec.hostId, spec.slot);
          await writeHostRecord(place.record, newHostRecord(spec, options.image.digest));
          await execute('ip', ['netns', 'add', place.netns]);
          await execute('ip', [
            'link',
            'add',
            place.veth,
            'type',
            'veth',
            'peer',
            'uplink',
            'netns',
            place.netns,
          ]);
        },
      },
      {
        name: 'a whole namespace, and no disk',
        leave: async (spec) => {
          const place = layoutOf(options, spec.hostId, spec.slot);
          await writeHostRecord(place.record, newHostRecord(spec, options.image.digest));
          await network.make(place);
        },
      },
    ],

    unusableMemory: [
      {
        name: 'memory that was cut short',
        leave: async (spec) => {
          const file = `${layoutOf(options, spec.hostId, spec.slot).directory}/memory`;
          await truncate(file, Math.floor((await stat(file)).size / 2));
        },
      },
      {
        name: 'memory of another version of QEMU',
        leave: (spec) => changeMemoryRecord(spec, (text) => text.replace('QEMU emulator', 'Other emulator')),
      },
      {
        name: 'memory that QEMU refuses',
        leave: async (spec) => {
          const { directory } = layoutOf(options, spec.hostId, spec.slot);
          await writeFile(`${directory}/memory`, 'not a migration stream');
          const digest = createHash('sha256').update('not a migration stream').digest('hex');
          await changeMemoryRecord(spec, (text) => text.replace(/"digest": "\w+"/, `"digest": "${digest}"`));
        },
      },
    ],

    writeRecord: (spec, text) => writeFile(recordFile(spec), text),

    async residue(hostId) {
      const own = slots.get(hostId) ?? 0;
      const place = layoutOf(options, hostId, own);
      const published = await execute('nft', ['list', 'map', 'inet', `berth_${site}`, 'ports']);
      return [
        ...[place.directory, place.runDirectory, place.netnsPath, `/sys/class/net/${place.veth}`].filter(
          (file) => existsSync(file),
        ),
        ...(await residueOf(site)).filter((line) => line.includes(hostId)),
        ...(published.stdout.includes(`: ${place.hostAddress}\n`) ||
        published.stdout.includes(`: ${place.hostAddress} `)
          ? [`published ports of ${place.hostAddress}`]
          : []),
      ];
    },

    async close() {
      const left = await residueOf(site);
      await destroyHosts(site);
      await state.remove();
      if (left.length > 0) throw new Error(`left behind: ${left.join('; ')}`);
    },
  };
});
