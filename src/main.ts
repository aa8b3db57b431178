import { readSettings, SettingsError } from './config/settings.ts';
import { CatalogError } from './core/catalog/load.ts';
import { createLogger } from './processes/logger.ts';
import { startApi } from './processes/api.ts';
import { startGateway } from './processes/gateway.ts';
import type { RunningProcess } from './processes/running-process.ts';
import { startWorker } from './processes/worker.ts';
import { startSupervisor } from './processes/supervisor/supervisor.ts';
import { DatabaseRoleError } from './postgres/server/database-roles.ts';

const roles = { api: startApi, gateway: startGateway, worker: startWorker };

const usage = `Usage: npm start [-- ROLE]

Without ROLE: sets up what is missing, and runs all three roles on this machine until Ctrl-C.
With ROLE (api, gateway or worker): runs that role alone; DATABASE_URL_FILE says where Postgres is.
The settings are environment variables: docs/settings.md lists them.
`;

const saidInALine = [SettingsError, CatalogError, DatabaseRoleError];

/** What goes wrong because of what the operator has set is said in a line, without a stack. */
function explain(error: unknown): string {
  if (saidInALine.some((kind) => error instanceof kind)) return (error as Error).message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

async function main(): Promise<void> {
  const [wanted = 'all', ...rest] = process.argv.slice(2);
  if (wanted === '--help' || wanted === '-h') {
    process.stdout.write(usage);
    return;
  }
  if ((wanted !== 'all' && !(wanted in roles)) || rest.length > 0) {
    process.stderr.write(usage);
    process.exitCode = 2;
    return;
  }
  const settings = readSettings();
  const running =
    wanted === 'all'
      ? await startSupervisor(settings)
      : await startRole(wanted as keyof typeof roles, settings);
  await untilAskedToStop();
  await running.stop();
}

async function startRole(
  role: keyof typeof roles,
  settings: ReturnType<typeof readSettings>,
): Promise<RunningProcess> {
  const logger = createLogger(role, settings.logLevel);
  const running = await roles[role](settings, logger);
  logger.info({}, `Ready. ${running.announcement}`);
  // Whoever started this role is told in its own way (processes/supervisor/supervisor.ts).
  process.send?.({ ready: running.announcement });
  return running;
}

function untilAskedToStop(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.once(signal, () => {
        resolve();
      });
    }
    // The one who started this role has gone, and would be the one to start it again.
    process.once('disconnect', () => {
      resolve();
    });
  });
}

try {
  await main();
  // What still holds the process open (a keep-alive connection, say) has been given its time.
  process.exit();
} catch (error) {
  process.stderr.write(`berth: ${explain(error)}\n`);
  process.exit(1);
}
