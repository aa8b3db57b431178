import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Knex } from 'knex';
import { brokerCredentials, type BrokerCredentials, siteId } from '../../src/config/secrets.ts';
import { readSettings, type Settings } from '../../src/config/settings.ts';
import { removeInstallationTraces } from '../lib/residue.ts';
import { createLogger } from '../../src/processes/logger.ts';
import { takeDatabase } from '../../src/processes/installation.ts';
import { provideDatabaseRoles } from '../../src/postgres/provision-roles.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { destroyHosts } from '../../src/hypervisors/open.ts';
import { catalog } from './catalog.ts';
import { mountSmallDisk, type SmallDisk } from './small-disk.ts';
import { freePorts } from './free-ports.ts';
import { type Faults, openFaults } from './faults.ts';
import { type ChaosProcess, startChaosProcess } from './child-process.ts';
import { type ChaosPostgres, startChaosPostgres } from './postgres.ts';

/** A separate broker for the drill: two processes each of api, gateway and worker, and an embedded Postgres. */
export interface ChaosInstallation {
  readonly settings: Settings;
  /** The site id: four hexadecimal digits, part of the names of namespaces, links and cgroups. */
  readonly id: string;
  readonly credentials: BrokerCredentials;
  /** Ports of the OSB listeners, one per api. */
  readonly apiPorts: readonly number[];
  /** Ports of the management listeners, one per api. */
  readonly mgmtPorts: readonly number[];
  readonly gatewayPorts: readonly number[];
  readonly processes: readonly ChaosProcess[];
  readonly faults: Faults;
  /** A connection as the owner of the tables. */
  readonly database: Knex;
  /** Retries a query while Postgres is being restarted. */
  query<T>(query: (database: Knex) => PromiseLike<T>): Promise<T>;
  readonly postgres: ChaosPostgres;
  /** The file system of the state directory; undefined if it has none. */
  readonly disk: SmallDisk | undefined;
  /** The settings of all processes, as environment variables. */
  readonly environment: Readonly<Record<string, string>>;
  /** For each process the file with its connection string. */
  readonly urlFiles: Readonly<Record<'api' | 'gateway' | 'worker', string>>;
  /** Output of all processes. */
  readonly logFile: string;
  stop(options?: { keep?: boolean }): Promise<void>;
}

export interface InstallationOptions {
  readonly hypervisor: 'simulated' | 'qemu';
  /** Length of the workers' leases on operations, in milliseconds. */
  readonly leaseMs: number;
  /** Folder of guest image, templates and empty disks between runs; required with qemu. */
  readonly cacheDirectory?: string;
  /** Gives the state directory its own file system, which can become full, if that can be mounted. */
  readonly ownDisk?: boolean;
  /** Separates concurrent installations: 0 to 9. */
  readonly testSlot?: number;
}

const postgresStartsWithinMs = 60_000;
const cachedFolders = ['images', 'templates', 'disks'];

export async function startInstallation(options: InstallationOptions): Promise<ChaosInstallation> {
  // A short path, because it contains Unix sockets; not in /tmp, because hosts' users must be able to enter it.
  const root = await mkdtemp('/var/tmp/berth-chaos-');
  await chmod(root, 0o755);
  const directory = path.join(root, 'state');
  await mkdir(directory);
  const disk = options.ownDisk === true ? await mountSmallDisk(directory).catch(() => undefined) : undefined;
  await chmod(directory, 0o755);
  const { cacheDirectory, testSlot = 0 } = options;
  if (cacheDirectory !== undefined) {
    for (const name of cachedFolders) {
      await mkdir(path.join(cacheDirectory, name), { recursive: true, mode: 0o755 });
      await symlink(path.join(cacheDirectory, name), path.join(directory, name));
    }
  }
  const catalogFile = path.join(directory, 'catalog.yaml');
  await writeFile(catalogFile, JSON.stringify(catalog));
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = await freePorts(6);
  const common = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    BERTH_STATE_DIR: directory,
    BERTH_HYPERVISOR: options.hypervisor,
    BERTH_EXTERNAL_HOST: '127.0.0.1',
    BERTH_LISTEN_ADDRESS: '127.0.0.1',
    BERTH_PORT: String(a),
    BERTH_MGMT_PORT: String(c),
    BERTH_GATEWAY_PORT: String(e),
    BERTH_HOST_NETWORK: `10.${220 + testSlot}.0.0/24`,
    BERTH_UID_BASE: String(700_000 + testSlot * 1000),
    BERTH_PUBLISHED_PORTS: `${23_000 + testSlot * 100 * 20}-${23_000 + (testSlot + 1) * 100 * 20 - 1}`,
    BERTH_SYNC_WAIT_MS: '2500',
    // Each tenant has its own org, and there are more of them than slots.
    BERTH_SLOT_REST_SECONDS: '2',
    BERTH_ORPHAN_GRACE_SECONDS: '2',
    // The disk is small.
    BERTH_DISK_RESERVE_MIB: '64',
    BERTH_DISK_OVERCOMMIT: '50',
    // Lets idle hosts be paused and suspended while tenants come and go.
    BERTH_IDLE_AFTER_SECONDS: '1',
    BERTH_SUSPEND_AFTER_SECONDS: '1',
    BERTH_RATE_PER_SECOND: '10000',
    BERTH_LOG_LEVEL: 'info',
    BERTH_CATALOG: catalogFile,
  };
  const settings = readSettings(common);
  const cleanUp: (() => Promise<unknown>)[] = [];
  // Not on the disk that may be full.
  const logFile = path.join(root, 'log');
  const id = await siteId(settings);
  const processes: ChaosProcess[] = [];
  const stop = async ({ keep = false } = {}) => {
    await Promise.all(processes.map((one) => one.stop()));
    if (options.hypervisor === 'qemu') await destroyHosts(settings, createLogger('chaos', 'warn'));
    for (const act of cleanUp.reverse()) await act();
    if (options.hypervisor === 'qemu') await removeInstallationTraces(id);
    await disk?.unmount();
    if (!keep) await rm(root, { recursive: true, force: true });
  };
  try {
    const postgres = await startChaosPostgres(directory);
    cleanUp.push(() => postgres.stop());
    const database = openDatabase(postgres.connectionString, { maxConnections: 4 });
    cleanUp.push(() => database.destroy());
    await takeDatabase(settings, database);
    const urlFiles = await provideDatabaseRoles(settings, postgres.connectionString, database);
    const credentials = await brokerCredentials(settings);
    const faultDirectory = path.join(root, 'faults');
    const faults = openFaults(faultDirectory);

    const program = (name: string) => fileURLToPath(new URL(name, import.meta.url));
    const start = (
      name: 'api' | 'gateway' | 'worker',
      number: number,
      command: readonly string[],
      own: Readonly<Record<string, string>>,
    ) => {
      const environment = { ...common, ...own, DATABASE_URL_FILE: urlFiles[name] };
      processes.push(startChaosProcess(`${name} ${number}`, command, environment, logFile));
    };
    const apiPorts = [a, b];
    const gatewayPorts = [e, f];
    const mgmtPorts = [c, d];
    for (const number of [1, 2]) {
      start('api', number, [program('../../src/main.js'), 'api'], {
        BERTH_PORT: String(apiPorts[number - 1]),
        BERTH_MGMT_PORT: String(mgmtPorts[number - 1]),
      });
      start('gateway', number, [program('../../src/main.js'), 'gateway'], {
        BERTH_GATEWAY_PORT: String(gatewayPorts[number - 1]),
      });
      start('worker', number, [program('worker.js'), faultDirectory, String(options.leaseMs)], {});
    }
    await Promise.all(processes.map((one) => one.ready()));

    return {
      settings,
      id,
      credentials,
      apiPorts,
      mgmtPorts,
      gatewayPorts,
      processes,
      faults,
      database,
      query: (run) => retryQuery(() => run(database)),
      postgres,
      disk,
      environment: common,
      urlFiles,
      logFile,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function retryQuery<T>(query: () => PromiseLike<T>): Promise<T> {
  const deadline = performance.now() + postgresStartsWithinMs;
  for (;;) {
    try {
      return await query();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await delay(100);
    }
  }
}
