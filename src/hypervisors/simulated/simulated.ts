import { get, type Server } from 'node:http';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Drift } from '../../core/hypervisor/integrity.ts';
import type { EngineAddress } from '../../core/hypervisor/network.ts';
import type { ObservedHost, StartedFrom } from '../../core/hypervisor/lifecycle.ts';
import type { HostTraffic } from '../../core/hypervisor/power.ts';
import { noRegistries, type HostSpec } from '../../core/hypervisor/host-spec.ts';
import type { Hypervisor } from '../../core/hypervisor/hypervisor.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import type { Logger } from '../../lib/logger.ts';
import { leaseMs } from '../../core/lease.ts';
import { createHostLocks } from '../host-locks.ts';
import { hostHeader, probePath, serveEngine } from './engine.ts';
import { openHostFiles, type SimulatedVm } from './host-files.ts';

export interface SimulatedOptions {
  /** The driver keeps its files in `simulated/` below it. */
  readonly stateDirectory: string;
  readonly logger?: Logger;
  /** Version of the image that its hosts pretend to boot. */
  readonly imageVersion?: string;
  /** How long things take that cost nothing here, in milliseconds each; 0 where left out. */
  readonly delays?: {
    /** From a start out of a template until the guest can be spoken to. */
    readonly restore?: number;
    /** From a cold start until the guest can be spoken to. */
    readonly boot?: number;
    /** To make a template. */
    readonly template?: number;
  };
  readonly faults?: SimulatedFaults;
  /** How long a process that holds a host may show no sign of life, in milliseconds; a lease where left out. */
  readonly patienceMs?: number;
}

/** Failures on purpose, for those who try out what is built on a hypervisor. */
export interface SimulatedFaults {
  /** Called before each act on a host. What it throws fails the act; while it waits the act hangs. */
  before(act: SimulatedAct, hostId: string): void | Promise<void>;
  /** What a check of the host finds altered; nothing where left out. */
  drift?(hostId: string): readonly Drift[];
  /** How many containers a host says that it runs; none where left out. */
  runningContainers?(hostId: string): number;
}
export type SimulatedAct =
  | 'prepare'
  | 'hold'
  | 'reshape'
  | 'start'
  | 'pause'
  | 'suspend'
  | 'resume'
  | 'identify'
  | 'configure'
  | 'connect'
  | 'answers'
  | 'quarantine'
  | 'stop'
  | 'destroy';

/**
 * A hypervisor that makes no virtual machines: each host is a state file and a stand-in of a Docker engine on
 * 127.0.0.1. It needs neither root nor QEMU, isolates nothing, and says on every surface that it is simulated.
 *
 * The stand-ins live in the process that started them. When it has gone, whichever process looks at them next
 * serves them again at their addresses; a host whose address was taken meanwhile counts as stopped.
 */
export function createSimulatedHypervisor(options: SimulatedOptions): Hypervisor {
  const { stateDirectory, logger, delays = {}, faults, imageVersion = '1.0.0+simulated' } = options;
  const files = openHostFiles(stateDirectory);
  /** The engines that this process serves, by host. */
  const served = new Map<string, { server: Server; port: number }>();
  /** Connections that were ever made to them. */
  const made = new Map<string, number>();

  const before = async (act: SimulatedAct, hostId: string) => {
    await faults?.before(act, hostId);
  };

  const serve = async (hostId: string, port: number): Promise<number> => {
    const engine = await serveEngine(files, hostId, port);
    engine.server.once('close', () => {
      if (served.get(hostId) === engine) served.delete(hostId);
    });
    engine.server.on('connection', () => made.set(hostId, (made.get(hostId) ?? 0) + 1));
    served.set(hostId, engine);
    return engine.port;
  };

  /** Whether a process, this or another, serves the host's engine where its file says. */
  const isServed = async (hostId: string, { port }: SimulatedVm): Promise<boolean> =>
    served.get(hostId)?.port === port || (await probe(port, probePath))?.hostId === hostId;

  /**
   * The machine that the host's file tells of, where it can be reached. A process that served it and has been
   * killed is no end of it: whoever looks next goes on serving it at its address.
   */
  const runningMachine = async (hostId: string): Promise<SimulatedVm | undefined> => {
    const machine = (await files.readHost(hostId))?.machine;
    if (machine === undefined || machine.power === 'suspended') return undefined;
    if (await isServed(hostId, machine)) return machine;
    try {
      await serve(hostId, machine.port);
    } catch {
      // Taken: by another process that was quicker to serve it, or by somebody else; then it counts as stopped.
      return (await isServed(hostId, machine)) ? machine : undefined;
    }
    const now = (await files.readHost(hostId))?.machine;
    if (now?.port === machine.port && now.power !== 'suspended') return machine;
    // It was stopped or suspended while we took it over.
    const engine = served.get(hostId);
    if (engine !== undefined) await closeServer(engine.server);
    return undefined;
  };

  const requireMachine = async (hostId: string): Promise<SimulatedVm> => {
    const machine = await runningMachine(hostId);
    if (machine === undefined) throw new HypervisorError(`no machine of simulated host ${hostId} runs`);
    return machine;
  };

  const requirePrepared = async (hostId: string) => {
    if ((await files.readHost(hostId)) !== undefined) return;
    throw new HypervisorError(`simulated host ${hostId} can't be started: it was not prepared`);
  };

  const changeMachine = (hostId: string, machine: SimulatedVm) =>
    files.changeHost(hostId, (host) => ({ ...host, machine }));

  const launch = async (spec: HostSpec, startedFrom: StartedFrom) => {
    const delayMs = { pool: 0, template: delays.restore ?? 0, boot: delays.boot ?? 0 }[startedFrom];
    const port = await serve(spec.hostId, 0).catch((cause: unknown) => {
      throw new HypervisorError(`simulated host ${spec.hostId} got no address: ${String(cause)}`, { cause });
    });
    const guestReadyAt = Date.now() + delayMs;
    const machine = {
      port,
      startedFrom,
      guestReadyAt,
      held: startedFrom === 'pool',
      power: 'running' as const,
      identified: false,
      registries: noRegistries,
      connected: false,
    };
    await changeMachine(spec.hostId, machine);
  };

  /** Lets a machine go on that stands still; false where there is none. */
  const goOn = async (hostId: string): Promise<boolean> => {
    const host = await files.readHost(hostId);
    if (host?.machine === undefined) return false;
    const { spec, machine } = host;
    // Who asks it before it goes on waits, as of one that is paused.
    if (machine.power === 'suspended')
      await files.writeHost({ spec, machine: { ...machine, power: 'paused' } });
    if ((await runningMachine(hostId)) === undefined) return false;
    if (machine.power !== 'running')
      await files.writeHost({ spec, machine: { ...machine, power: 'running' } });
    return true;
  };

  const endMachine = async (hostId: string, leave: () => Promise<void>) => {
    const port = (await files.readHost(hostId))?.machine?.port;
    await leave();
    const engine = served.get(hostId);
    if (engine !== undefined) await closeServer(engine.server);
    // Another process may serve it: asked, it finds that the machine has ended, and closes.
    else if (port !== undefined) await probe(port, probePath);
  };

  const locks = createHostLocks(path.join(stateDirectory, 'simulated', 'locks'), {
    patienceMs: options.patienceMs ?? leaseMs,
    logger,
  });
  const locked = locks.withLock;

  return {
    name: 'simulated',
    imageVersion,

    async open() {
      logger?.warn({}, 'Hosts are simulated: no virtual machine is made, and no container can run');
      await files.create();
      for (const hostId of await files.hostIds()) await runningMachine(hostId);
    },

    async close() {
      await Promise.all([...served.values()].map(({ server }) => closeServer(server)));
    },

    withHostLock: locked,

    async hasTemplate(planName) {
      return (await files.readTemplate(planName)) !== undefined;
    },

    async makeTemplate({ planName, shape }, report, signal) {
      const existing = await files.readTemplate(planName);
      if (existing !== undefined && sameShape(existing.shape, shape)) return;
      report(`Making a simulated template of plan ${planName}`);
      await delay(delays.template ?? 0, undefined, { signal });
      await files.writeTemplate({ planName, shape });
    },

    prepare: (spec) =>
      locked(spec.hostId, async () => {
        await before('prepare', spec.hostId);
        if ((await files.readHost(spec.hostId)) !== undefined) return;
        await files.createHostDirectory(spec.hostId);
        await files.writeHost({ spec: { imageVersion, ...spec }, machine: undefined });
      }),

    park: (spec) =>
      locked(spec.hostId, async () => {
        const { hostId } = spec;
        await before('hold', hostId);
        await requirePrepared(hostId);
        const template = await files.readTemplate(spec.planName);
        const machine = await runningMachine(hostId);
        if (template === undefined || !sameShape(template.shape, spec.shape)) return false;
        if (machine !== undefined) return machine.held;
        if ((await files.readDisk(hostId)).hasRun) return false;
        await launch(spec, 'pool');
        return true;
      }),

    start: (spec) =>
      locked(spec.hostId, async () => {
        const { hostId } = spec;
        await before('start', hostId);
        await requirePrepared(hostId);
        const machine = await runningMachine(hostId);
        const disk = await files.readDisk(hostId);
        await files.writeDisk(hostId, { ...disk, hasRun: true });
        if (machine?.held === true) await changeMachine(hostId, { ...machine, held: false });
        if (await goOn(hostId)) return;
        const template = await files.readTemplate(spec.planName);
        await launch(spec, template !== undefined && !disk.hasRun ? 'template' : 'boot');
      }),

    pause: (hostId) =>
      locked(hostId, async () => {
        await before('pause', hostId);
        const machine = await requireMachine(hostId);
        const host = await files.readHost(hostId);
        if (host !== undefined) await files.writeHost({ ...host, machine: { ...machine, power: 'paused' } });
      }),

    suspend: (hostId) =>
      locked(hostId, async () => {
        await before('suspend', hostId);
        const host = await files.readHost(hostId);
        if (host?.machine?.power === 'suspended') return;
        const machine = await requireMachine(hostId);
        if (host === undefined) return;
        await endMachine(hostId, () =>
          files.writeHost({ ...host, machine: { ...machine, power: 'suspended' } }),
        );
      }),

    resume: ({ hostId }) =>
      locked(hostId, async () => {
        await before('resume', hostId);
        if (!(await goOn(hostId))) await requireMachine(hostId);
      }),

    async traffic(specs) {
      const one = async ({ hostId }: HostSpec): Promise<[string, HostTraffic]> => {
        const server = served.get(hostId)?.server;
        const connections = server === undefined ? 0 : await countConnections(server);
        return [hostId, { connections, packets: made.get(hostId) ?? 0 }];
      };
      return new Map(await Promise.all(specs.map(one)));
    },

    // No container can run: what is counted is what a test wants to be counted.
    async runningContainers({ hostId }) {
      await requireMachine(hostId);
      return faults?.runningContainers?.(hostId) ?? 0;
    },

    identify: (spec) =>
      locked(spec.hostId, async () => {
        await before('identify', spec.hostId);
        const machine = await requireMachine(spec.hostId);
        if (machine.held || machine.power !== 'running' || Date.now() < machine.guestReadyAt) return false;
        await changeMachine(spec.hostId, { ...machine, identified: true });
        return true;
      }),

    configureRegistries: (spec) =>
      locked(spec.hostId, async () => {
        await before('configure', spec.hostId);
        const machine = await requireMachine(spec.hostId);
        if (machine.held || Date.now() < machine.guestReadyAt) return false;
        await changeMachine(spec.hostId, { ...machine, registries: spec.registries });
        return true;
      }),

    connect: (spec) =>
      locked(spec.hostId, async (): Promise<EngineAddress> => {
        await before('connect', spec.hostId);
        const machine = await requireMachine(spec.hostId);
        if (!machine.identified) {
          throw new HypervisorError(`simulated host ${spec.hostId} has no identity of its own yet`);
        }
        if (await files.isQuarantined(spec.hostId)) {
          throw new HypervisorError(`simulated host ${spec.hostId} is in quarantine`);
        }
        const { publishedPorts, egress } = spec;
        await files.changeHost(spec.hostId, (host) => ({
          spec: { ...host.spec, publishedPorts, egress },
          machine: { ...machine, connected: true },
        }));
        return { host: '127.0.0.1', port: machine.port };
      }),

    async engineAnswers({ hostId }) {
      await before('answers', hostId);
      const { port } = await requireMachine(hostId);
      return (await probe(port, '/_ping'))?.status === 200;
    },

    async startedFrom(hostId) {
      return (await requireMachine(hostId)).startedFrom;
    },

    async imageVersionOf(hostId) {
      return (await files.readHost(hostId))?.spec.imageVersion ?? imageVersion;
    },

    reshape: (spec) =>
      locked(spec.hostId, async () => {
        await before('reshape', spec.hostId);
        if ((await runningMachine(spec.hostId)) !== undefined) {
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
      }),

    // It has no containers.
    restartContainers: () => Promise.resolve(true),

    stop: (hostId) =>
      locked(hostId, async () => {
        await before('stop', hostId);
        const host = await files.readHost(hostId);
        if (host === undefined) return;
        await endMachine(hostId, () => files.writeHost({ spec: host.spec, machine: undefined }));
      }),

    destroy: (hostId) =>
      locked(hostId, async () => {
        await before('destroy', hostId);
        await endMachine(hostId, () => files.removeHost(hostId));
      }),

    async list() {
      return Promise.all(
        (await files.hostIds()).map(async (hostId): Promise<ObservedHost> => {
          const machine = await runningMachine(hostId);
          if (machine !== undefined) {
            return { hostId, state: machine.held || machine.power === 'paused' ? 'paused' : 'running' };
          }
          const isSuspended = (await files.readHost(hostId))?.machine?.power === 'suspended';
          return { hostId, state: isSuspended ? 'suspended' : 'stopped' };
        }),
      );
    },

    // Nothing of a host is there that could be altered: what is found is what a test wants to be found.
    async verify(hostId) {
      await requireMachine(hostId);
      return faults?.drift?.(hostId) ?? [];
    },

    quarantine: (hostId) =>
      locked(hostId, async () => {
        const host = await files.readHost(hostId);
        if (host === undefined) return;
        await before('quarantine', hostId);
        await files.quarantine(hostId);
        if (host.machine !== undefined) {
          await files.writeHost({ ...host, machine: { ...host.machine, connected: false } });
        }
      }),

    release: (hostId) => locked(hostId, () => files.release(hostId)),

    // There is no machine whose memory could be measured.
    memoryUsage: () => Promise.resolve(undefined),
  };
}

function sameShape(one: HostSpec['shape'], other: HostSpec['shape']): boolean {
  return one.vcpus === other.vcpus && one.memoryMib === other.memoryMib && one.diskGib === other.diskGib;
}

function closeServer(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) =>
    server.close(() => {
      resolve();
    }),
  );
  server.closeAllConnections();
  return closed;
}

function countConnections(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.getConnections((error, count) => {
      if (error === null) resolve(count);
      else reject(error);
    });
  });
}

/** Asks whatever listens at a port. Undefined where nothing does, or it does not answer within two seconds. */
function probe(
  port: number,
  path: string,
): Promise<{ hostId: string | undefined; status: number } | undefined> {
  return new Promise((resolve) => {
    const request = get({ host: '127.0.0.1', port, path, agent: false, timeout: 2000 }, (response) => {
      response.resume();
      const hostId = response.headers[hostHeader];
      resolve({
        hostId: typeof hostId === 'string' ? hostId : undefined,
        status: response.statusCode ?? 0,
      });
    });
    request.once('timeout', () => request.destroy());
    request.once('error', () => {
      resolve(undefined);
    });
  });
}
