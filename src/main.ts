import { readSettings, SettingsError } from './config/settings.ts';
import { CatalogError } from './core/catalog/load.ts';
import { printError, printText } from './lib/terminal.ts';
import { createLogger } from './processes/logger.ts';
import { protectFromOomKiller } from './processes/oom-protection.ts';
import { startApi } from './processes/api.ts';
import { startGateway } from './processes/gateway.ts';
import type { RunningProcess } from './processes/running-process.ts';
import { startWorker } from './processes/worker.ts';
import type { ChildMessage } from './processes/supervisor/child-process.ts';
import { startSupervisor } from './processes/supervisor/supervisor.ts';
import { InstallationError } from './core/installation.ts';
import { PostgresVersionError } from './postgres/server/server-binaries.ts';
import { DatabaseRoleError } from './postgres/server/database-roles.ts';

const processes = { api: startApi, gateway: startGateway, worker: startWorker };

const usage = `Usage: npm start [-- PROCESS]

Without PROCESS: sets up what is missing, and runs all three processes on this node until Ctrl-C.
With PROCESS (api, gateway or worker): runs that process alone; DATABASE_URL_FILE contains the address of Postgres.
The settings are environment variables, listed in docs/settings.md.
For development: npm run dev (simulated hosts, restarts if a source changes).
`;

const errorsWithRemedy = [
  SettingsError,
  CatalogError,
  DatabaseRoleError,
  InstallationError,
  PostgresVersionError,
];

/** Errors that the operator can fix are printed without a stack. */
function explain(error: unknown): string {
  if (errorsWithRemedy.some((kind) => error instanceof kind)) return (error as Error).message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

async function main(): Promise<void> {
  const [wanted = 'all', ...rest] = process.argv.slice(2);
  if (wanted === '--help' || wanted === '-h') {
    printText(usage);
    return;
  }
  if ((wanted !== 'all' && !(wanted in processes)) || rest.length > 0) {
    printError(usage);
    process.exitCode = 2;
    return;
  }
  const settings = readSettings();
  const running =
    wanted === 'all'
      ? await startSupervisor(settings)
      : // It may wait for something that only the supervisor can provide.
        await Promise.race([startOne(wanted as keyof typeof processes, settings), untilAbandoned()]);
  if (running === undefined) return;
  await Promise.race([untilSignalled(), untilAbandoned()]);
  await running.stop();
}

async function startOne(
  name: keyof typeof processes,
  settings: ReturnType<typeof readSettings>,
): Promise<RunningProcess> {
  const logger = createLogger(name, settings.logLevel);
  // A process of the supervisor inherits its protection.
  const unprotected = process.send === undefined ? await protectFromOomKiller() : undefined;
  if (unprotected !== undefined) logger.warn({}, unprotected);
  const running = await processes[name](settings, logger);
  logger.info({}, `Ready. ${running.announcement}`);
  // For the supervisor (supervisor/child-process.ts).
  tellSupervisor({ ready: running.announcement });
  if (running.preparation !== undefined && process.connected) {
    running.preparation.show((progress) => {
      tellSupervisor({ progress });
    });
    void running.preparation.ready.then(() => {
      tellSupervisor({ prepared: true });
    });
  }
  return running;
}

function tellSupervisor(message: ChildMessage): void {
  if (process.connected) process.send?.(message);
}

function untilSignalled(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        resolve();
      });
    }
  });
}

/** Resolves when the supervisor has ended: nobody would restart this process, or stop it. */
function untilAbandoned(): Promise<undefined> {
  return new Promise((resolve) => {
    const abandoned = () => {
      resolve(undefined);
    };
    if (process.send !== undefined && !process.connected) abandoned();
    else process.once('disconnect', abandoned);
  });
}

function fail(error: unknown): never {
  printError(`berth: ${explain(error)}`);
  process.exit(1);
}

// Node would print it unescaped.
process.on('uncaughtException', fail);
try {
  await main();
  // Ends what still keeps the process alive, such as a keep-alive connection.
  process.exit();
} catch (error) {
  fail(error);
}
