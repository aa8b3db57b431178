import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type BrokerCredentials, brokerCredentials } from '../../../src/config/secrets.ts';
import { readSettings } from '../../../src/config/settings.ts';
import { provideDatabaseRoles } from '../../../src/postgres/provision-roles.ts';
import { migrate, openDatabase } from '../../../src/postgres/database.ts';
import { startEmbeddedPostgres } from '../../../src/postgres/server/embedded.ts';
import type { Knex } from 'knex';
import { putAwayOnce } from '../interruption.ts';

const run = promisify(execFile);

/** One Postgres, and brokers of the bench's own over databases of their own in it. */
export interface Rig {
  startBroker(name: string, options: { withWorker: boolean }): Promise<RigBroker>;
  stop(): Promise<void>;
}

export interface RigBroker {
  readonly port: number;
  readonly user: BrokerCredentials['broker'];
  readonly database: Knex;
  /** CPU time of the api so far, in milliseconds. */
  apiCpuMs(): Promise<number>;
}

/** The slots that the api gives to new hosts; seeded ones are beyond. */
export const ownSlots = 1_500;
const portsPerSlot = 20;
const firstPort = 17_200;

/**
 * Each api runs on the first core, alone; the bench itself, Postgres and workers have the others.
 * @param options.profileDirectory where V8 writes a CPU profile of each api when it ends.
 */
export async function buildRig(options: { profileDirectory: string | undefined }): Promise<Rig> {
  const cores = cpus().length;
  if (cores < 2) throw new Error('two cores are needed: one for the api, one for what it is measured with');
  // What is started from here on inherits it (sched_setaffinity(2)).
  await run('taskset', ['--all-tasks', '--cpu-list', '--pid', `1-${cores - 1}`, String(process.pid)]);
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
  // After Ctrl-C, what is still being asked fails with its broker.
  const stop = putAwayOnce(async () => {
    for (const one of stops.reverse()) await one();
  });
  let brokers = 0;

  async function startRole(
    role: 'api' | 'worker',
    environment: Record<string, string>,
  ): Promise<ChildProcess> {
    const profile =
      role === 'api' && options.profileDirectory !== undefined
        ? ['--cpu-prof', `--cpu-prof-dir=${options.profileDirectory}`]
        : [];
    const core = role === 'api' ? '0' : `1-${cores - 1}`;
    const child = spawn('taskset', ['--cpu-list', core, process.execPath, ...profile, main, role], {
      env: environment,
      // Its log is written as ever, and read by nobody.
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)));
    stops.push(() => ended(child));
    await new Promise<void>((resolve, reject) => {
      child.once('message', () => {
        resolve();
      });
      child.once('exit', () => {
        reject(new Error(`the ${role} did not start: ${said}`));
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
      await migrate(database);

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
        // Without a worker there is nothing to wait for; with one, everything ends within the request.
        BERTH_SYNC_WAIT_MS: withWorker ? '25000' : '0',
      };
      const settings = readSettings(environment);
      const urlFiles = await provideDatabaseRoles(settings, connectionString, database);
      const { broker } = await brokerCredentials(settings);
      const api = await startRole('api', { ...environment, DATABASE_URL_FILE: urlFiles.api });
      if (withWorker) await startRole('worker', { ...environment, DATABASE_URL_FILE: urlFiles.worker });
      return { port, user: broker, database, apiCpuMs: () => cpuMs(api.pid ?? 0) };
    },
    stop,
  };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const over = new Promise<void>((resolve) => {
    child.once('exit', () => {
      resolve();
    });
  });
  child.kill('SIGTERM');
  await over;
}

/** User and system time (proc(5), fields 14 and 15 of stat), in clock ticks of 10 ms. */
async function cpuMs(pid: number): Promise<number> {
  const { stdout } = await run('cat', [`/proc/${pid}/stat`]);
  const fields = stdout.slice(stdout.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
