import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { noRegistries } from '../../src/core/hypervisor/host-spec.ts';
import { createSimulatedHypervisor } from '../../src/hypervisors/simulated/simulated.ts';
import { restoredPlans } from './harness.ts';
import { describeHypervisor } from './hypervisor.ts';

const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };

describeHypervisor('simulated', { bootMs: 10_000, templateMs: 10_000 }, async () => {
  const stateDirectory = await mkdtemp(path.join(tmpdir(), 'berth-simulated-'));
  const directoryOf = (hostId: string) => path.join(stateDirectory, 'simulated', 'hosts', hostId);
  let slot = 0;

  return {
    plan: { planName: 'small', shape },

    createDriver: () =>
      createSimulatedHypervisor({
        ...{ stateDirectory, restoredPlans },
        delays: { restore: 20, boot: 60, template: 5 },
      }),

    newSpec() {
      slot += 1;
      return {
        hostId: randomUUID(),
        slot,
        planName: 'small',
        shape,
        publishedPorts: { first: 20_000 + 2 * slot, count: 2 },
        egress: { kind: 'internet' },
        registries: noRegistries,
      };
    },

    async askEngine({ host, port }, { method, path: target, body }) {
      const response = await fetch(`http://${host}:${port}${target}`, {
        method,
        ...(body === undefined ? {} : { body, headers: { 'content-type': 'application/json' } }),
        signal: AbortSignal.timeout(5000),
      });
      return { status: response.status, body: await response.text() };
    },

    // A second driver object that serves no engine: it changes the files only, as another process would.
    killVm: (hostId) => createSimulatedHypervisor({ stateDirectory }).stop(hostId),

    halfMade: [
      {
        name: 'a directory without a state file',
        async leave({ hostId }) {
          await mkdir(directoryOf(hostId), { recursive: true });
        },
      },
      {
        name: 'a state file that was not yet renamed',
        async leave({ hostId }) {
          await mkdir(directoryOf(hostId), { recursive: true });
          await writeFile(path.join(directoryOf(hostId), 'host.json.1.new'), '{"spec":');
        },
      },
    ],

    unusableMemory: ['', '{}'].map((text) => ({
      name: `memory replaced by '${text}'`,
      leave: ({ hostId }) => writeFile(path.join(directoryOf(hostId), 'memory.json'), text),
    })),

    writeRecord: ({ hostId }, text) => writeFile(path.join(directoryOf(hostId), 'host.json'), text),
    residue: (hostId) => Promise.resolve([directoryOf(hostId)].filter((file) => existsSync(file))),

    async close() {
      await rm(stateDirectory, { recursive: true, force: true });
    },
  };
});
