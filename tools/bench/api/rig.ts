import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BrokerCredentials, brokerCredentials } from '../../../src/config/secrets.ts';
import { readSettings } from '../../../src/config/settings.ts';
import { takeDatabase } from '../../../src/processes/installation.ts';
import { provideDatabaseRoles } from '../../../src/postgres/provision-roles.ts';
import { openDatabase } from '../../../src/postgres/database.ts';
import { startEmbeddedPostgres } from '../../../src/postgres/server/embedded.ts';
import type { Knex } from 'knex';
import { stopChild } from '../lib/child-process.ts';
import { registerCleanup } from '../lib/cleanup.ts';
import { cpuSeconds, pin } from '../lib/proc.ts';

/** One Postgres server, and brokers of the bench, each with its own database in it. */
export interface Rig {
  startBroker(name: string, options: { withWorker: boolean }): Promise<RigBroker>;
  stop(): Promise<void>;
}

export interface RigBroker {
  readonly port: number;
  readonly user: BrokerCredentials['broker'];
  readonly database: Knex;
  /** CPU time that the api process has used, in milliseconds. */
  apiCpuMs(): Promise<number>;
}

/** The slots that the api assigns to new hosts; seeded hosts use higher ones. */
export const ownSlots = 1_500;
const portsPerSlot = 20;
const firstPort = 17_200;

/**
 * The api processes run on the first core, alone; the bench itself, Postgres and workers use the others.
 * @param options.profileDirectory V8 writes a CPU profile there when an api process ends.
 */
export async function buildRig(options: { profileDirectory: string | undefined }): Promise<Rig> {
  const cores = cpus().length;
  if (cores < 2)
    throw new Error('two cores are needed: one for the api, one for the load generator and Postgres');
  const otherCores = `1-${cores - 1}`;
  await pin(process.pid, otherCores);
  const directory = await mkdtemp('/var/tmp/berth-bench-');
  await chmod(directory, 0o755);
  const postgres = await startEmbeddedPostgres({
    directory: path.join(directory, 'postgres'),
    socketDirectory: path.join(directory, 'socket'),
  });
  const main = fileURLToPath(new URL('../../../src/main.js', import.meta.url));
  const stops: (() => Promise<void>)[] = [
    () => rm(directory, { recursive: true, force: true }),
    () => postgres.stop(),
  ];
  // After Ctrl-C, requests in flight fail because their broker ends.
  const stop = registerCleanup(async () => {
    for (const stopOne of stops.reverse()) await stopOne();
  });
  let brokers = 0;

  async function startProcess(
    name: 'api' | 'worker',
    environment: Record<string, string>,
  ): Promise<ChildProcess> {
    const profile =
      name === 'api' && options.profileDirectory !== undefined
        ? ['--cpu-prof', `--cpu-prof-dir=${options.profileDirectory}`]
        : [];
    const allowedCores = name === 'api' ? '0' : otherCores;
    const child = spawn('taskset', ['--cpu-list', allowedCores, process.execPath, ...profile, main, name], {
      env: environment,
      // The log is written as in production, so that its cost is measured, and discarded.
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let output = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-4000)));
    stops.push(() => stopChild(child, 'SIGTERM'));
    await new Promise<void>((resolve, reject) => {
      child.once('message', () => {
        resolve();
      });
      child.once('exit', () => {
        reject(new Error(`the ${name} process did not start: ${output}`));
      });
    });
    return child;
  }

  return {
    async startBroker(name, { withWorker }) {
      const url = new URL(postgres.connectionString.replace('@/', '@localhost/'));
      const administrator = openDatabase(postgres.connectionString, { maxConnections: 1 });
      try {
        await administrator.raw('CREATE DATABASE ??', [name]);
      } finally {
        await administrator.destroy();
      }
      url.pathname = `/${name}`;
      const connectionString = url.href.replace('@localhost/', '@/');
      const database = openDatabase(connectionString, { maxConnections: 2 });
      stops.push(async () => {
        await database.destroy();
      });

      const stateDirectory = path.join(directory, name);
      await mkdir(stateDirectory, { mode: 0o755 });
      const port = firstPort + brokers * 10;
      brokers += 1;
      const environment = {
        PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        BERTH_STATE_DIR: stateDirectory,
        BERTH_HYPERVISOR: 'simulated',
        BERTH_PORT: String(port),
        BERTH_GATEWAY_PORT: String(port + 1),
        BERTH_MGMT_PORT: String(port + 2),
        BERTH_UID_BASE: '650000',
        BERTH_PUBLISHED_PORTS: `30000-${30_000 + ownSlots * portsPerSlot - 1}`,
        // Without a worker nothing finishes within a request; with one, everything does.
        BERTH_SYNC_WAIT_MS: withWorker ? '25000' : '0',
      };
      const settings = readSettings(environment);
      await takeDatabase(settings, database);
      const urlFiles = await provideDatabaseRoles(settings, connectionString, database);
      const { broker } = await brokerCredentials(settings);
      const api = await startProcess('api', { ...environment, DATABASE_URL_FILE: urlFiles.api });
      if (withWorker) await startProcess('worker', { ...environment, DATABASE_URL_FILE: urlFiles.worker });
      return { port, user: broker, database, apiCpuMs: async () => (await cpuSeconds(api.pid ?? 0)) * 1000 };
    },
    stop,
  };
}
