import path from 'node:path';
import { allCapabilities, type Capabilities } from '../../core/hypervisor/capabilities.ts';
import { type HostSpec, noRegistries } from '../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import type { Driver, Hypervisor } from '../../core/hypervisor/hypervisor.ts';
import type { StartedFrom } from '../../core/hypervisor/lifecycle.ts';
import type { HostTraffic } from '../../core/hypervisor/power.ts';
import { leaseMs } from '../../core/lease-duration.ts';
import type { Logger } from '../../lib/logger.ts';
import { createHostLocks } from '../host-locks.ts';
import { hostIdOf } from '../host-methods.ts';
import { type Faults, withFaults } from '../with-faults.ts';
import { withOwners } from '../with-owners.ts';
import { type MethodDeadlines, withDeadlines } from '../with-deadlines.ts';
import { withHostLocks } from '../with-host-locks.ts';
import { createSimulatedGrowth } from './growth.ts';
import { type HostFiles, openHostFiles, type SimulatedVm } from './host-files.ts';
import { createSimulatedObserver } from './observe.ts';
import { createOwnerRecords, omitOwner, recordOwner } from './owners.ts';
import { createSimulatedPower } from './power.ts';
import { resume } from './resume.ts';
import { createServedEngines } from './served-engines.ts';
import { createSimulatedTemplate } from './template.ts';

export interface SimulatedOptions {
  /** The driver's files are in `simulated/` below it. */
  readonly stateDirectory: string;
  readonly logger?: Logger;
  /** Version of the image that its hosts pretend to boot. */
  readonly imageVersion?: string;
  /** Simulated durations in milliseconds; default 0. */
  readonly delays?: {
    /** From a start from the template until the guest answers. */
    readonly restore?: number;
    /** From a cold boot until the guest answers. */
    readonly boot?: number;
    /** To make the template. */
    readonly template?: number;
  };
  readonly faults?: Faults;
  /** Names of the plans whose hosts are restored from the template; default: all. */
  readonly restoredPlans?: ReadonlySet<string>;
  /** What `grow` adds; default: everything. */
  readonly liveGrowth?: Capabilities['liveGrowth'];
  /** A lock holder that shows no sign of life for this long is killed, in milliseconds; default: the length of a lease. */
  readonly patienceMs?: number;
  /** Of its methods; default: those of every driver. */
  readonly deadlines?: MethodDeadlines;
}

/**
 * A hypervisor that makes no VMs: each host is a state file and an HTTP server on 127.0.0.1 in place of its
 * Docker engine. It needs neither root nor QEMU, isolates nothing, and says in every answer that it is simulated.
 *
 * An engine is served by the process that started its host. If that process ends, the next one that looks at the host
 * serves it at the same port; if the port was taken in between, the host counts as stopped.
 */
export function createSimulatedHypervisor(options: SimulatedOptions): Hypervisor {
  const locks = createHostLocks(path.join(options.stateDirectory, 'simulated', 'locks'), {
    patienceMs: options.patienceMs ?? leaseMs,
    logger: options.logger,
  });
  const files = openHostFiles(options.stateDirectory);
  const driver = withDeadlines(
    withFaults(createSimulatedDriver(options, files), options.faults),
    options.deadlines,
  );
  return withHostLocks(withOwners(driver, createOwnerRecords(files)), locks);
}

function createSimulatedDriver(
  options: Omit<SimulatedOptions, 'patienceMs' | 'deadlines'>,
  files: HostFiles,
): Driver {
  const { logger, delays = {}, imageVersion = '1.0.0+simulated' } = options;
  const liveGrowth = options.liveGrowth ?? allCapabilities.liveGrowth;
  const engines = createServedEngines(files);

  async function requirePrepared(hostId: string): Promise<void> {
    if ((await files.readHost(hostId)) !== undefined) return;
    throw new HypervisorError(`simulated host ${hostId} can't be started: it was not prepared`);
  }

  const writeVm = (hostId: string, vm: SimulatedVm) => files.changeHost(hostId, (host) => ({ ...host, vm }));

  async function launch(spec: HostSpec, startedFrom: StartedFrom): Promise<void> {
    const delayMs = { pool: 0, template: delays.restore ?? 0, boot: delays.boot ?? 0 }[startedFrom];
    const port = await engines.serve(spec.hostId, 0).catch((cause: unknown) => {
      throw new HypervisorError(`simulated host ${spec.hostId} got no address: ${String(cause)}`, { cause });
    });
    await writeVm(spec.hostId, {
      port,
      startedFrom,
      guestReadyAt: Date.now() + delayMs,
      parked: startedFrom === 'pool',
      power: 'running',
      identified: false,
      registries: noRegistries,
      connected: false,
    });
  }

  /** Its VM gets what the spec has more than the pool's host. */
  const claim = ({ hostId, planName, shape }: HostSpec, vm: SimulatedVm) =>
    files.changeHost(hostId, (host) => ({
      spec: { ...host.spec, planName, shape },
      vm: { ...vm, parked: false, shape },
    }));

  const observe = createSimulatedObserver(files, engines, logger);
  const template = createSimulatedTemplate(files, {
    ...{ imageVersion, restoredPlans: options.restoredPlans },
    makingMs: delays.template ?? 0,
  });

  return {
    name: 'simulated',
    capabilities: { ...allCapabilities, liveGrowth },

    async open() {
      logger?.warn({}, 'Hosts are simulated: no VM is made, and no container can run');
      await files.create();
      for (const hostId of await files.hostIds()) await observe(hostId);
    },

    close: () => engines.close(),

    ...createSimulatedPower(files, engines),
    ...createSimulatedGrowth(files, engines, { liveGrowth, faults: options.faults }),

    imageVersion: () => imageVersion,
    installImage: () => Promise.resolve(),

    hasTemplate: template.hasTemplate,
    makeTemplate: template.makeTemplate,

    async park(spec) {
      const { hostId } = spec;
      await requirePrepared(hostId);
      const vm = await engines.runningVm(hostId);
      if (!(await template.fits(spec))) return false;
      if (vm !== undefined) return vm.parked;
      if ((await files.readDisk(hostId)).hasRun) return false;
      await launch(spec, 'pool');
      return true;
    },

    async prepare(spec) {
      if ((await files.readHost(spec.hostId)) !== undefined) return;
      await files.createHostDirectory(spec.hostId);
      // `start` records the owner, as that of a parked host.
      await files.writeDisk(spec.hostId, { hasRun: false, volumes: [], slot: spec.slot });
      await files.writeHost({ spec: { imageVersion, ...omitOwner(spec) }, vm: undefined });
    },

    async start(spec) {
      const { hostId } = spec;
      await requirePrepared(hostId);
      const disk = await files.readDisk(hostId);
      // Recorded first: from then on nobody else gets the host.
      await recordOwner(files, spec);
      await files.writeDisk(hostId, { ...disk, hasRun: true });
      // By the file: another process, which has just ended, may still have its engine's port.
      const vm = (await files.readHost(hostId))?.vm;
      if (vm?.parked === true) await claim(spec, vm);
      if ((await resume(files, engines, hostId)) === 'resumed') return;
      await launch(spec, !disk.hasRun && (await template.fits(spec)) ? 'template' : 'boot');
    },

    async stop(hostId) {
      const host = await files.readHost(hostId);
      if (host === undefined) return;
      await engines.endVm(hostId, () => files.writeHost({ spec: host.spec, vm: undefined }));
    },

    async reshape(spec) {
      if ((await engines.runningVm(spec.hostId)) !== undefined) {
        throw new HypervisorError(`simulated host ${spec.hostId} runs: it must be stopped first`);
      }
      if (spec.imageVersion !== undefined && spec.imageVersion !== imageVersion) {
        throw new HypervisorError(`no image of version ${spec.imageVersion} is installed`);
      }
      await files.changeHost(spec.hostId, (host) => ({
        ...host,
        spec: {
          ...host.spec,
          ...spec,
          shape: { ...spec.shape, diskGib: Math.max(host.spec.shape.diskGib, spec.shape.diskGib) },
        },
      }));
    },

    async destroy(host) {
      const hostId = hostIdOf(host);
      await engines.endVm(hostId, () => files.removeHost(hostId));
    },

    async recordOwner(spec) {
      if ((await files.readHost(spec.hostId)) === undefined) return;
      if ((await files.readDisk(spec.hostId)).hasRun) await recordOwner(files, spec);
    },

    async list() {
      return Promise.all((await files.hostIds()).map(observe));
    },

    async startedFrom(hostId) {
      return (await engines.requireVm(hostId)).startedFrom;
    },

    async imageVersionOf(hostId) {
      return (await files.readHost(hostId))?.spec.imageVersion ?? imageVersion;
    },

    async traffic(specs) {
      const one = async ({ hostId }: HostSpec): Promise<[string, HostTraffic]> => [
        hostId,
        await engines.traffic(hostId),
      ];
      return new Map(await Promise.all(specs.map(one)));
    },

    async identify({ hostId }) {
      const vm = await engines.requireVm(hostId);
      if (vm.parked || vm.power !== 'running' || vm.halted === true || Date.now() < vm.guestReadyAt)
        return false;
      await writeVm(hostId, { ...vm, identified: true });
      return true;
    },

    // Its guest has the node's clock.
    async correctClock({ hostId }) {
      return (await engines.requireVm(hostId)).identified;
    },

    async configureRegistries({ hostId, registries }) {
      const vm = await engines.requireVm(hostId);
      if (vm.parked || Date.now() < vm.guestReadyAt) return false;
      await writeVm(hostId, { ...vm, registries });
      return true;
    },

    engineAnswers: ({ hostId }) => engines.answers(hostId),

    // No container can run, so there are none to count or to start again.
    async runningContainers({ hostId }) {
      await engines.requireVm(hostId);
      return 0;
    },
    restartContainers: () => Promise.resolve(true),

    async connect({ hostId, publishedPorts, egress }) {
      const vm = await engines.requireVm(hostId);
      if (!vm.identified) throw new HypervisorError(`simulated host ${hostId} has no identity yet`);
      if (await files.isQuarantined(hostId)) {
        throw new HypervisorError(`simulated host ${hostId} is in quarantine`);
      }
      await files.changeHost(hostId, (host) => ({
        spec: { ...host.spec, publishedPorts, egress },
        vm: { ...vm, connected: true },
      }));
      return { host: '127.0.0.1', port: vm.port };
    },

    // Simulated hosts have no network rules.
    repairNode: () => Promise.resolve({ altered: [], foreign: [] }),

    // A state file has no manifest to differ from.
    async verify(hostId) {
      await engines.requireVm(hostId);
      return [];
    },

    async quarantine(hostId) {
      const host = await files.readHost(hostId);
      if (host === undefined) return;
      await files.quarantine(hostId);
      if (host.vm !== undefined) await files.writeHost({ ...host, vm: { ...host.vm, connected: false } });
    },

    release: (hostId) => files.release(hostId),

    // There are no processes that could be measured.
    memoryUsage: () => Promise.resolve(undefined),
    processorTimes: () => Promise.resolve(new Map()),
    setProcessorWeights: () => Promise.resolve(),

    diskSpace: () => Promise.resolve(undefined),
  };
}
