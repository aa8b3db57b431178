import { fork } from 'node:child_process';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Knex } from 'knex';
import { userIds } from '../../../src/config/users.ts';
import type { Credentials } from '../../../src/http/osb/credentials-body.ts';
import type { EngineAddress } from '../../../src/core/hypervisor/network.ts';
import { connectPlatform, type Platform } from '../../lib/platform.ts';
import { createGatewayCertificateAuthorities } from '../../../src/postgres/certificate-authorities.ts';
import { createCertificateRequester } from '../../../src/postgres/certificate-requests.ts';
import { channels } from '../../../src/postgres/channels.ts';
import { openDatabase } from '../../../src/postgres/database.ts';
import { startEmbeddedPostgres } from '../../../src/postgres/server/embedded.ts';
import { startListener } from '../../../src/postgres/listener.ts';
import { startBroker } from '../lib/broker.ts';
import { registerCleanup } from '../lib/cleanup.ts';
import type { Target } from './connection.ts';
import { startHaproxy } from './haproxy.ts';
import { stopChild } from '../lib/child-process.ts';
import { pin, processOf } from '../lib/proc.ts';

/** The three ways to one engine. */
export const ways = ['direct', 'haproxy', 'berth'] as const;
export type Way = (typeof ways)[number];

/** A broker with one instance, and HAProxy in front of the same engine. */
export interface Rig {
  readonly platform: Platform;
  /** The one instance that there is. */
  readonly instanceId: string;
  /** As the owner of the tables. */
  readonly database: Knex;
  readonly gatewayPid: number;
  readonly haproxyPid: number;
  /** For files that other users must not read. */
  readonly directory: string;
  targets(credentials: Credentials): Readonly<Record<Way, Target>>;
  stop(): Promise<void>;
}

/** The measured engine: a stand-in on the node behind a simulated host, or a real guest's. */
export type Engine = 'stand-in' | 'guest';

const haproxyPort = 17_089;
const planId = 'bench-small';
const catalog = {
  offerings: [
    {
      id: 'bench',
      name: 'container-host',
      description: 'For the bench',
      plans: [
        {
          ...{ id: planId, name: 'small', description: 'For the bench', free: true },
          host: { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 10 },
        },
      ],
    },
  ],
};

/**
 * Gateway and HAProxy run on the last core, each alone while the other is idle; everything else runs on the first.
 */
export async function buildRig(
  engineKind: Engine,
  options: { cacheDirectory: string },
  progress: (line: string) => void,
): Promise<Rig> {
  const cores = availableParallelism();
  if (cores < 2) throw new Error('two cores are needed: one for the gateways, one for the load generator');
  const stops: (() => Promise<void>)[] = [];
  const stop = registerCleanup(async () => {
    const failures: unknown[] = [];
    for (let act = stops.pop(); act !== undefined; act = stops.pop()) {
      await act().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw new AggregateError(failures, 'the bench could not clean up everything');
  });
  try {
    await pin(process.pid, '0');
    stops.push(() => pin(process.pid, `0-${cores - 1}`));
    // Postgres's user must be able to enter it; secrets in it are in files of mode 0600.
    const directory = await mkdtemp('/var/tmp/berth-bench-gateway-');
    await chmod(directory, 0o755);
    stops.push(() => rm(directory, { recursive: true, force: true }));
    const postgres = await startEmbeddedPostgres({
      directory: path.join(directory, 'postgres'),
      socketDirectory: path.join(directory, 'socket'),
    });
    stops.push(() => postgres.stop());
    const urlFile = path.join(directory, 'database-url');
    await writeFile(urlFile, postgres.connectionString, { mode: 0o600 });
    const broker = await startBroker(catalog, options.cacheDirectory, progress, {
      DATABASE_URL_FILE: urlFile,
      BERTH_HYPERVISOR: engineKind === 'guest' ? 'qemu' : 'simulated',
    });
    stops.push(() => broker.stop());
    const database = openDatabase(postgres.connectionString, { maxConnections: 2 });
    stops.push(() => database.destroy());

    const platform = await connectPlatform(broker.settings);
    const instanceId = 'bench-gateway';
    progress('making a host');
    await platform.create(instanceId, 'bench', planId);
    stops.push(() => platform.remove(instanceId));
    const engine = engineKind === 'guest' ? await engineOf(database) : await standIn(database, stops);

    const { gateway: uid } = userIds(broker.settings.uidBase);
    const listener = await startListener({
      connectionString: postgres.connectionString,
      listenTo: [channels.certificateRequests],
      onLost: () => undefined,
    });
    const clientCa = (await createGatewayCertificateAuthorities(database, listener).read()).clients[0]
      ?.certificatePem;
    if (clientCa === undefined) throw new Error('the broker has no CA for client certificates');
    const haproxy = await startHaproxy({
      ...{ directory, port: haproxyPort, engine, clientCa, uid },
      sign: async (request) =>
        (await createCertificateRequester(database, listener).request(request, 10_000)).chain,
    }).finally(() => listener.stop());
    stops.push(() => haproxy.stop());
    const gatewayPid = await processOf(broker.settings.stateDirectory, 'gateway');
    for (const pid of [gatewayPid, haproxy.pid]) await pin(pid, String(cores - 1));

    return {
      ...{ platform, instanceId, database, directory, gatewayPid, haproxyPid: haproxy.pid, stop },
      targets: ({ ca, cert, key }) => ({
        direct: engineKind === 'guest' ? { ...engine, uid } : engine,
        haproxy: { host: '127.0.0.1', port: haproxyPort, tls: { ca, cert, key } },
        berth: { host: '127.0.0.1', port: broker.settings.gatewayPort, tls: { ca, cert, key } },
      }),
    };
  } catch (error) {
    await stop().catch(() => undefined);
    throw error;
  }
}

async function engineOf(database: Knex): Promise<EngineAddress> {
  const host = await database<{ engine_host: string; engine_port: number }>('hosts')
    .whereNotNull('engine_host')
    .first();
  if (host === undefined) throw new Error('the host has no engine');
  return { host: host.engine_host, port: host.engine_port };
}

/** Starts the stand-in, and records it as the engine of the one host; the gateway reads the record. */
async function standIn(database: Knex, stops: (() => Promise<void>)[]): Promise<EngineAddress> {
  const child = fork(fileURLToPath(new URL('stand-in.js', import.meta.url)), { env: {} });
  stops.push(() => stopChild(child, 'SIGTERM'));
  const port = await new Promise<number>((resolve, reject) => {
    child.once('message', (message) => {
      resolve(Number(message));
    });
    child.once('exit', () => {
      reject(new Error('the stand-in did not start'));
    });
  });
  const engine = { host: '127.0.0.1', port };
  await database('hosts').update({ engine_host: engine.host, engine_port: engine.port });
  return engine;
}
