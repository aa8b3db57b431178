import type { Server } from 'node:http';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import type { HostTraffic } from '../../core/hypervisor/power.ts';
import { probePath, serveEngine } from './engine.ts';
import type { HostFiles, SimulatedVm } from './host-files.ts';
import { probe } from './probe.ts';

/**
 * The engines that this process serves. A host's file says at which port its engine is to be found; any process may be
 * the one that serves it. If that process is killed, the next one that looks at the host serves it at the same port.
 */
export interface ServedEngines {
  /** Serves a host's engine. @param port 0 takes a free one. @returns the port. */
  serve(hostId: string, port: number): Promise<number>;
  /** The VM in the host's file, if its engine is reachable or could be served again; else undefined. */
  runningVm(hostId: string): Promise<SimulatedVm | undefined>;
  /** @throws HypervisorError if no VM runs. */
  requireVm(hostId: string): Promise<SimulatedVm>;
  /** Whether the engine answers `GET /_ping`. @throws HypervisorError if no VM runs. */
  answers(hostId: string): Promise<boolean>;
  /** Ends the host's engine, in whichever process, after `change` removed the VM from the host's file. */
  endVm(hostId: string, change: () => Promise<void>): Promise<void>;
  /** As far as this process serves the engine. */
  traffic(hostId: string): Promise<HostTraffic>;
  close(): Promise<void>;
}

export function createServedEngines(files: HostFiles): ServedEngines {
  const served = new Map<string, { server: Server; port: number }>();
  /** Connections ever made to an engine, by host. */
  const connectionsMade = new Map<string, number>();

  async function serve(hostId: string, port: number): Promise<number> {
    const engine = await serveEngine(files, hostId, port);
    engine.server.once('close', () => {
      if (served.get(hostId) === engine) served.delete(hostId);
    });
    engine.server.on('connection', () => connectionsMade.set(hostId, (connectionsMade.get(hostId) ?? 0) + 1));
    served.set(hostId, engine);
    return engine.port;
  }

  /** Whether this or another process serves the host's engine at the port in its file. */
  const isServed = async (hostId: string, { port }: SimulatedVm): Promise<boolean> =>
    served.get(hostId)?.port === port || (await probe(port, probePath))?.hostId === hostId;

  async function runningVm(hostId: string): Promise<SimulatedVm | undefined> {
    const vm = (await files.readHost(hostId))?.vm;
    if (vm === undefined || vm.power === 'suspended') return undefined;
    if (await isServed(hostId, vm)) return vm;
    try {
      await serve(hostId, vm.port);
    } catch {
      // The port is taken: by another process that was quicker to serve the host, or by a stranger; then it is stopped.
      return (await isServed(hostId, vm)) ? vm : undefined;
    }
    const current = (await files.readHost(hostId))?.vm;
    if (current?.port === vm.port && current.power !== 'suspended') return vm;
    // It was stopped or suspended while this process began to serve it.
    const engine = served.get(hostId);
    if (engine !== undefined) await closeServer(engine.server);
    return undefined;
  }

  async function requireVm(hostId: string): Promise<SimulatedVm> {
    const vm = await runningVm(hostId);
    if (vm === undefined) throw new HypervisorError(`no VM of simulated host ${hostId} runs`);
    return vm;
  }

  return {
    serve,
    runningVm,
    requireVm,

    async answers(hostId) {
      const { port } = await requireVm(hostId);
      return (await probe(port, '/_ping'))?.status === 200;
    },

    async endVm(hostId, change) {
      // The port of an unreadable host, which an operator has decided to destroy, is unknown.
      const port = (await files.readHost(hostId).catch(() => undefined))?.vm?.port;
      await change();
      const engine = served.get(hostId);
      if (engine !== undefined) await closeServer(engine.server);
      // Another process may serve it: any request makes that process read the file, and close.
      else if (port !== undefined) await probe(port, probePath);
    },

    async traffic(hostId) {
      const server = served.get(hostId)?.server;
      const connections = server === undefined ? 0 : await countConnections(server);
      return { connections, packets: connectionsMade.get(hostId) ?? 0 };
    },

    async close() {
      await Promise.all([...served.values()].map(({ server }) => closeServer(server)));
    },
  };
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
