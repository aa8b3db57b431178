import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { noRegistries, type RegistrySettings } from '../../core/hypervisor/host-spec.ts';
import { type HostFiles, shapeInUse, type SimulatedHost } from './host-files.ts';

const version = '26.1.5+simulated';
const apiVersion = '1.45';
const notice = 'This host is simulated: no VM runs, and no container can.';
/** Answered by a paused VM too: it says that the VM exists, not that its guest runs. */
export const probePath = '/berth-probe';
/** How often a request to a paused VM checks whether it was resumed, in milliseconds. */
const pausedPollMs = 20;
/** Largest body of a request, in bytes. */
const bodyLimit = 64 * 1024;

/** Response header with the host's id, so that a port that another process took is not mistaken for the host. */
export const hostHeader = 'berth-simulated-host';

/**
 * Serves a stand-in for one host's Docker engine on 127.0.0.1: enough of the Engine API (v1.45) for `docker
 * version`, `info`, `ps` and the like. Any other request is answered with 501 and a message that the host is simulated.
 * The server closes itself once the host's file says that no VM runs at this port any more.
 * @param port to listen on; 0 takes a free one.
 */
export async function serveEngine(
  files: HostFiles,
  hostId: string,
  port: number,
): Promise<{ server: Server; port: number }> {
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 30_000 }, (request, response) => {
    answer(request, response).catch((error: unknown) => {
      send(response, 500, { message: `${notice} It failed: ${String(error)}` });
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const servedPort = portOf(server);
  return { server, port: servedPort };

  async function answer(request: IncomingMessage, response: ServerResponse) {
    let host = await files.readHost(hostId);
    // A request to a paused VM waits until it is resumed.
    while (
      (host?.vm?.power === 'paused' || host?.vm?.halted === true) &&
      request.url !== probePath &&
      !response.destroyed
    ) {
      await delay(pausedPollMs);
      host = await files.readHost(hostId);
    }
    // A suspended VM is not served, so that its port is free when it is resumed.
    if (host?.vm?.port !== servedPort || host.vm.power === 'suspended') {
      server.close();
      server.closeAllConnections();
      return;
    }
    response.setHeader(hostHeader, hostId);
    if (!host.vm.connected) {
      send(response, 503, { message: `${notice} It is not connected yet.` });
      return;
    }
    const path = (request.url ?? '/').replace(/\?.*/s, '').replace(/^\/v\d+\.\d+(?=\/)/, '');
    const { status, body } = await respond(files, host, request, path);
    send(response, status, request.method === 'HEAD' ? '' : body);
  }
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server does not listen');
  return address.port;
}

async function respond(files: HostFiles, host: SimulatedHost, request: IncomingMessage, path: string) {
  const { hostId } = host.spec;
  const ok = (body: unknown) => ({ status: 200, body });
  switch (`${request.method ?? ''} ${path}`) {
    case 'GET /_ping':
    case 'HEAD /_ping':
      return ok('OK');
    case 'GET /version':
      return ok(versionBody);
    case 'GET /info':
      return ok(info(host));
    case 'GET /containers/json':
    case 'GET /images/json':
    case 'GET /networks':
      return ok([]);
    case 'GET /volumes': {
      const { volumes } = await files.readDisk(hostId);
      return ok({ Volumes: volumes.map(volume), Warnings: [notice] });
    }
    case 'POST /volumes/create': {
      const name = volumeName(await readBody(request));
      if (name === undefined) {
        return { status: 400, body: { message: `${notice} A volume needs a Name: letters, digits, "_.-"` } };
      }
      const disk = await files.readDisk(hostId);
      if (!disk.volumes.includes(name)) {
        await files.writeDisk(hostId, { ...disk, volumes: [...disk.volumes, name] });
      }
      return { status: 201, body: volume(name) };
    }
    default:
      return {
        status: 501,
        body: {
          message: `this host is simulated: it can't do ${request.method ?? ''} ${path.slice(0, 200)}`,
        },
      };
  }
}

function send(response: ServerResponse, status: number, body: unknown) {
  if (response.headersSent || response.destroyed) return;
  response.setHeader('server', `Docker/${version} (Berth's simulated hypervisor)`);
  response.setHeader('api-version', apiVersion);
  response.setHeader('ostype', 'linux');
  const text = typeof body === 'string';
  response.writeHead(status, { 'content-type': text ? 'text/plain; charset=utf-8' : 'application/json' });
  response.end(text ? body : JSON.stringify(body));
}

const versionBody = {
  Platform: { Name: "Berth's simulated hypervisor" },
  Components: [
    { Name: 'Engine', Version: version, Details: { ApiVersion: apiVersion, MinAPIVersion: '1.24' } },
  ],
  Version: version,
  ApiVersion: apiVersion,
  MinAPIVersion: '1.24',
  GitCommit: 'simulated',
  GoVersion: 'simulated',
  Os: 'linux',
  Arch: 'amd64',
  KernelVersion: 'simulated',
  BuildTime: 'simulated',
};

function info(host: SimulatedHost) {
  const { spec, vm } = host;
  const { vcpus, memoryMib } = shapeInUse(host) ?? spec.shape;
  return {
    ID: spec.hostId,
    Name: `berth-${spec.hostId.slice(0, 8)}`,
    Containers: 0,
    ContainersRunning: 0,
    ContainersPaused: 0,
    ContainersStopped: 0,
    Images: 0,
    Driver: 'simulated',
    ServerVersion: version,
    OperatingSystem: 'none: this host is simulated',
    OSType: 'linux',
    Architecture: 'x86_64',
    KernelVersion: 'simulated',
    NCPU: vcpus,
    MemTotal: memoryMib * 1024 * 1024,
    DockerRootDir: '/var/lib/docker',
    Labels: ['berth.simulated=true'],
    Plugins: { Volume: ['local'], Network: [], Authorization: null, Log: [] },
    RegistryConfig: registryConfig(vm?.registries ?? noRegistries),
    Runtimes: {},
    Swarm: { LocalNodeState: 'inactive' },
    Warnings: [`WARNING: ${notice}`],
  };
}

/** As dockerd shows it: mirrors with a slash at the end, networks apart from names. */
function registryConfig({ mirrors, insecure }: RegistrySettings) {
  const isNetwork = (registry: string) => registry.includes('/');
  const names = insecure.filter((registry) => !isNetwork(registry));
  return {
    InsecureRegistryCIDRs: ['127.0.0.0/8', ...insecure.filter(isNetwork)],
    IndexConfigs: Object.fromEntries(
      names.map((name) => [name, { Name: name, Mirrors: [], Secure: false, Official: false }]),
    ),
    Mirrors: mirrors.map((mirror) => (mirror.endsWith('/') ? mirror : `${mirror}/`)),
  };
}

function volume(name: string) {
  return {
    Name: name,
    Driver: 'local',
    Scope: 'local',
    Mountpoint: `/var/lib/docker/volumes/${name}/_data`,
    Labels: { 'berth.simulated': 'true' },
    Options: {},
  };
}

function volumeName(body: string | undefined): string | undefined {
  try {
    const { Name: name } = JSON.parse(body ?? '') as { Name?: unknown };
    return typeof name === 'string' && /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/.test(name) ? name : undefined;
  } catch {
    return undefined;
  }
}

/** Undefined if it is longer than the limit. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bodyLimit) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
