import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  brokerCredentials,
  credentialsPath,
  databaseUrl,
  masterKeyText,
  siteId,
} from '../../config/secrets.ts';
import { listenerTls } from '../../config/tls.ts';
import { roleEnvironment, type Settings, SettingsError } from '../../config/settings.ts';
import { readCatalog } from '../../config/read-catalog.ts';
import { allPlans } from '../../core/catalog/lookup.ts';
import { openHypervisor } from '../../hypervisors/open.ts';
import { acquireProcessLock } from '../../lib/process-lock.ts';
import { createLogger } from '../logger.ts';
import { createProgress } from '../../lib/progress.ts';
import { type MasterKeyAnswer, masterKeyQuestion } from '../../secrets/master-key-file.ts';
import { provideRoles } from '../../postgres/provision-roles.ts';
import { repeat } from '../../lib/repeat.ts';
import type { RunningProcess } from '../running-process.ts';
import { createAuditRetention } from '../../postgres/audit.ts';
import { migrate, openDatabase } from '../../postgres/database.ts';
import { startEmbeddedPostgres } from '../../postgres/server/embedded.ts';
import { createPlansInUse } from '../../postgres/plans-in-use.ts';
import { refuseDroppedPlans } from '../../core/catalog/dropped-plans.ts';
import { untilReachable } from '../../postgres/server/reachable.ts';
import { errorMessage } from '../../lib/error-message.ts';

const roleNames = ['gateway', 'worker', 'api'] as const;
type RoleName = (typeof roleNames)[number];

const restartAfterMs = 1_000;
const auditRetentionMs = 24 * 3600 * 1000;
const postgresWatchMs = 2_000;
/** How long a start waits for a Postgres that is not there yet. Milliseconds. */
const postgresPatienceMs = 30_000;

/**
 * Sets up what is missing and runs the three roles, each in a process of its own with rights of its own.
 * Hosts are not children of it: they go on running when it stops, and are adopted at the next start.
 */
export async function startSupervisor(settings: Settings): Promise<RunningProcess> {
  const say = (line: string) => process.stdout.write(`berth: ${line}\n`);
  await mkdir(settings.stateDirectory, { recursive: true, mode: 0o755 });
  const lock = await acquireProcessLock(path.join(settings.stateDirectory, 'lock'), settings.stateDirectory);
  const cleanUp = [() => lock.release()];
  const stop = async () => {
    for (const act of cleanUp.reverse()) await act();
  };
  try {
    const catalog = await readCatalog(settings);
    await brokerCredentials(settings);
    await listenerTls(settings);
    const site = await siteId(settings);

    const url = (await databaseUrl(settings)) ?? (await embedded());
    async function embedded(): Promise<string> {
      say('starting the embedded Postgres');
      const postgres = await startEmbeddedPostgres({
        directory: path.join(settings.stateDirectory, 'postgres'),
        socketDirectory: path.join(socketRoot(settings, site), 'postgres'),
      });
      const logger = createLogger('postgres', settings.logLevel);
      const stopWatching = repeat(
        postgresWatchMs,
        () => postgres.ensureRunning(),
        (error) => {
          logger.error({ err: error }, 'The embedded Postgres has ended and can not be started again');
        },
      );
      cleanUp.push(async () => {
        await stopWatching();
        await postgres.stop();
      });
      return postgres.connectionString;
    }
    const urlFiles = await prepareDatabase();
    const stopForgetting = repeat(auditRetentionMs, forgetOldAudit, (error) => {
      createLogger('setup', settings.logLevel).error(
        { err: error },
        'Old rows of the audit trail could not be ended; it is tried again tomorrow',
      );
    });
    cleanUp.push(stopForgetting);
    /** Only the owner of the tables may: no role can shorten the trail. */
    async function forgetOldAudit(): Promise<void> {
      const database = openDatabase(url, { maxConnections: 1 });
      await createAuditRetention(database)
        .deleteOlderThan(settings.auditDays)
        .finally(() => database.destroy());
    }

    async function prepareDatabase() {
      await untilReachable(url, {
        patienceMs: postgresPatienceMs,
        onWaiting: (error) => {
          say(`Postgres can't be reached (${error.message}); waiting for it`);
        },
      }).catch((cause: unknown) => {
        const reason = errorMessage(cause);
        throw new SettingsError(
          `Postgres can't be reached (${reason}): start it, or have DATABASE_URL_FILE (or DATABASE_URL) say where it is; without either Berth brings its own.`,
          { cause },
        );
      });
      const database = openDatabase(url, { maxConnections: 1 });
      try {
        await migrate(database);
        await refuseDroppedPlans(createPlansInUse(database), catalog);
        return await provideRoles(settings, url, database);
      } finally {
        await database.destroy();
      }
    }

    await prepareHypervisor();
    async function prepareHypervisor(): Promise<void> {
      const progress = createProgress(process.stdout);
      const hypervisor = await openHypervisor(settings, createLogger('setup', 'warn'), {
        report: (line) => {
          progress.show(line);
        },
        loadAhead: false,
      });
      try {
        // The first plan's template is worth waiting for; the worker makes the others behind the tenants' work.
        const plan = allPlans(catalog).find(({ fromTemplate }) => fromTemplate);
        if (plan !== undefined) {
          await hypervisor.makeTemplate(
            { planName: plan.name, shape: plan.shape },
            (step) => {
              progress.show(`template ${plan.name}: ${step}`);
            },
            new AbortController().signal,
          );
        }
      } finally {
        progress.end();
        await hypervisor.close();
      }
    }

    /** The api has given root up, and asks us for the master keys when they are rotated. */
    async function answer(name: RoleName, message: unknown): Promise<MasterKeyAnswer | undefined> {
      if (name !== 'api' || (message as Partial<typeof masterKeyQuestion>).ask !== masterKeyQuestion.ask) {
        return undefined;
      }
      return { masterKey: await masterKeyText(settings, undefined).catch(() => undefined) };
    }
    const roles = roleNames.map((name) => superviseRole(name, urlFiles[name], say, answer));
    cleanUp.push(async () => {
      await Promise.all(roles.map((role) => role.stop()));
    });
    await Promise.all(roles.map((role) => role.ready));
    process.stdout.write(introduction(settings));
    return { announcement: '', stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Unix sockets need a short path; /run is only root's. */
function socketRoot(settings: Settings, site: string): string {
  return process.getuid?.() === 0 ? `/run/berth-${site}` : path.join(settings.stateDirectory, 'run');
}

/**
 * Runs a role in a process of its own, and starts it again when it ends unasked. It gets Berth's own settings
 * and nothing else of our environment.
 */
function superviseRole(
  name: RoleName,
  urlFile: string,
  say: (line: string) => void,
  answer: (name: RoleName, message: unknown) => Promise<object | undefined>,
): { ready: Promise<void>; stop: () => Promise<void> } {
  const main = fileURLToPath(new URL('../../main.js', import.meta.url));
  let child: ChildProcess | undefined;
  let ended: Promise<void> = Promise.resolve();
  let stopping = false;
  let again: NodeJS.Timeout | undefined;
  const ready = new Promise<void>((resolve, reject) => {
    let wasReady = false;
    const start = () => {
      const started = spawn(...withoutGain(name, [process.execPath, main, name]), {
        env: roleEnvironment(urlFile),
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        // Ctrl-C goes to every process of the terminal's group; a role is told by us, in order.
        detached: true,
      });
      child = started;
      started.on('message', (message) => {
        if ('ready' in (message as object)) {
          wasReady = true;
          resolve();
          return;
        }
        void answer(name, message).then((reply) => {
          if (reply !== undefined && started.connected) started.send(reply);
        });
      });
      ended = new Promise((over) => {
        started.on('exit', (code, signal) => {
          over();
          if (stopping) return;
          if (!wasReady) {
            reject(new Error(`the ${name} did not start; what it said is above`));
            return;
          }
          say(`the ${name} has ended (${signal ?? `exit code ${code}`}); it is started again`);
          again = setTimeout(start, restartAfterMs);
        });
      });
    };
    start();
  });
  return {
    ready,
    async stop() {
      stopping = true;
      clearTimeout(again);
      child?.kill('SIGTERM');
      await ended;
    },
  };
}

/**
 * A role that faces others never gets a right that it has given up: no program that it starts gives it any, not even
 * one with the set-user-ID bit.
 */
function withoutGain(name: RoleName, command: [string, ...string[]]): [string, string[]] {
  const [program, ...args] = command;
  return name === 'worker' || process.platform !== 'linux'
    ? [program, args]
    : ['setpriv', ['--no-new-privs', ...command]];
}

function introduction(settings: Settings): string {
  const scheme = settings.tlsCertificateFile === undefined ? 'http' : 'https';
  const osbUrl = `${scheme}://${settings.externalHost}:${settings.port}`;
  const simulated =
    settings.hypervisor === 'simulated'
      ? '\n  THIS IS SIMULATED: no virtual machine is made, and nothing is isolated.\n'
      : '';
  return `
Berth is ready.
${simulated}
  OSB API        ${osbUrl}
  Gateway        tcp://${settings.externalHost}:${settings.gatewayPort}
  Management     http://${settings.mgmtAddress}:${settings.mgmtPort}/mgmt/health
  Credentials    ${credentialsPath(settings)}

In another terminal:
  npm run demo                 plays a platform and two tenants
  npm run berth -- hosts       lists the hosts
Cloud Foundry:
  cf create-service-broker berth USERNAME PASSWORD ${osbUrl}

Ctrl-C stops the roles; hosts go on running.

`;
}
