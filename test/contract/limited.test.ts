import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Capabilities } from '../../src/core/hypervisor/capabilities.ts';
import { noRegistries } from '../../src/core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../src/core/hypervisor/hypervisor-error.ts';
import type { Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import { createSimulatedHypervisor } from '../../src/hypervisors/simulated/simulated.ts';
import { restoredPlans } from './harness.ts';
import { describeHypervisor } from './hypervisor.ts';

/** A driver that can do as little as the contract allows, so that the suite's refusals are tested too. */
const capabilities: Capabilities = {
  pause: false,
  suspend: false,
  templates: false,
  park: false,
  egress: ['none'],
  publishedPorts: false,
  diskGrowth: false,
  liveGrowth: { vcpus: false, memory: false, disk: false },
  traffic: false,
  imageUpgrade: false,
};

const refuse = (what: string) => () => Promise.reject(new HypervisorError(`${what} is not supported`));

function createLimitedHypervisor(stateDirectory: string): Hypervisor {
  const driver = createSimulatedHypervisor({
    ...{ stateDirectory, restoredPlans },
    liveGrowth: capabilities.liveGrowth,
  });
  return {
    ...driver,
    capabilities,
    pause: refuse('pause'),
    suspend: refuse('suspend'),
    hasTemplate: () => Promise.resolve(false),
    makeTemplate: refuse('makeTemplate'),
    park: refuse('park'),
    traffic: refuse('traffic'),
    reshape: (spec) =>
      spec.shape.diskGib > shape.diskGib || spec.imageVersion !== undefined
        ? refuse(`reshape to image ${spec.imageVersion ?? 'unchanged'}`)()
        : driver.reshape(spec),
    connect: (spec) =>
      spec.egress.kind !== 'none' || spec.publishedPorts.count > 0
        ? refuse('connect')()
        : driver.connect(spec),
  };
}

const shape = { vcpus: 1, memoryMib: 768, diskGib: 4 };

describeHypervisor('limited', { bootMs: 10_000, templateMs: 10_000 }, async () => {
  const stateDirectory = await mkdtemp(path.join(tmpdir(), 'berth-limited-'));
  const directoryOf = (hostId: string) => path.join(stateDirectory, 'simulated', 'hosts', hostId);
  let slot = 0;
  return {
    plan: { planName: 'small', shape },
    createDriver: () => createLimitedHypervisor(stateDirectory),
    newSpec: () => ({
      hostId: randomUUID(),
      slot: ++slot,
      planName: 'small',
      shape,
      publishedPorts: { first: 20_000, count: 0 },
      egress: { kind: 'none' },
      registries: noRegistries,
    }),
    async askEngine({ host, port }, { method, path: target, body }) {
      const response = await fetch(`http://${host}:${port}${target}`, {
        method,
        ...(body !== undefined && { body, headers: { 'content-type': 'application/json' } }),
        signal: AbortSignal.timeout(5000),
      });
      return { status: response.status, body: await response.text() };
    },
    killVm: (hostId) => createSimulatedHypervisor({ stateDirectory }).stop(hostId),
    halfMade: [
      {
        name: 'a directory without a state file',
        leave: async ({ hostId }) => {
          await mkdir(directoryOf(hostId), { recursive: true });
        },
      },
    ],
    unusableMemory: [],
    writeRecord: ({ hostId }, text) => writeFile(path.join(directoryOf(hostId), 'host.json'), text),
    residue: (hostId) => Promise.resolve([directoryOf(hostId)].filter((file) => existsSync(file))),
    close: () => rm(stateDirectory, { recursive: true, force: true }),
  };
});
