import { mkdir } from 'node:fs/promises';
import { readCatalog } from '../../config/read-catalog.ts';
import { brokerCredentials, databaseUrl, masterKeyText, siteId } from '../../config/secrets.ts';
import type { Settings } from '../../config/settings.ts';
import { listenerTls } from '../../config/tls.ts';
import { requireRights } from '../../hypervisors/open.ts';
import { lockStateDirectory } from '../../hypervisors/state-directory-lock.ts';
import { repeat } from '../../lib/repeat.ts';
import { printLine, printText } from '../../lib/terminal.ts';
import { createAuditRetention } from '../../postgres/audit.ts';
import { openDatabase } from '../../postgres/database.ts';
import { type MasterKeyAnswer, masterKeyQuestion } from '../../secrets/master-key-file.ts';
import { createLogger } from '../logger.ts';
import { protectFromOomKiller } from '../oom-protection.ts';
import type { RunningProcess } from '../running-process.ts';
import { banner } from './banner.ts';
import { type ProcessName, processNames, startChildProcess } from './child-process.ts';
import { prepareDatabase, startOwnPostgres } from './prepare.ts';

const auditRetentionEveryMs = 24 * 3600 * 1000;

/**
 * Sets up what is missing and runs api, gateway and worker, each as a process with its own privileges. They serve while
 * the worker still prepares the image and the template; the banner follows that. Hosts are not child processes: they
 * keep running when this stops, and the next start adopts them.
 */
export async function startSupervisor(settings: Settings): Promise<RunningProcess> {
  const say = (line: string) => {
    printLine(`berth: ${line}`);
  };
  let lastProgress: string | undefined;
  const onProgress = (progress: string) => {
    if (progress === lastProgress) return;
    if (lastProgress === undefined) {
      say('the worker prepares new hosts; existing ones can be reached meanwhile');
    }
    lastProgress = progress;
    say(progress);
  };
  await mkdir(settings.stateDirectory, { recursive: true, mode: 0o755 });
  const lock = await lockStateDirectory(settings.stateDirectory);
  const cleanUp = [() => lock.release()];
  const stop = async () => {
    for (const act of cleanUp.reverse()) await act();
  };
  try {
    requireRights(settings);
    const unprotected = await protectFromOomKiller();
    if (unprotected !== undefined) say(unprotected);
    const catalog = await readCatalog(settings);
    await brokerCredentials(settings);
    await listenerTls(settings);
    const site = await siteId(settings);

    let url = await databaseUrl(settings);
    if (url === undefined) {
      say('starting the embedded Postgres');
      const postgres = await startOwnPostgres(settings, site);
      cleanUp.push(postgres.stop);
      url = postgres.url;
    }
    const urlFiles = await prepareDatabase(settings, catalog, url, say);
    cleanUp.push(startAuditRetention(settings, url));

    const processes = processNames.map((name) =>
      startChildProcess(name, {
        urlFile: urlFiles[name],
        say,
        onProgress,
        answer: (message) => answerMasterKey(settings, name, message),
      }),
    );
    cleanUp.push(async () => {
      await Promise.all(processes.map((one) => one.stop()));
    });
    await Promise.all(processes.map((one) => one.ready));
    void processes[processNames.indexOf('worker')]?.prepared.then(() => {
      printText(banner(settings));
    });
    return { announcement: '', stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Runs here, since only the owner of the tables may delete rows of the audit trail. */
function startAuditRetention(settings: Settings, url: string): () => Promise<void> {
  const logger = createLogger('setup', settings.logLevel);
  return repeat(
    auditRetentionEveryMs,
    async () => {
      const database = openDatabase(url, { maxConnections: 1 });
      await createAuditRetention(database)
        .deleteOlderThan(settings.auditDays)
        .finally(() => database.destroy());
    },
    (error) => {
      logger.error({ err: error }, 'Old audit rows could not be deleted; retrying in 24 h');
    },
  );
}

/** The api has dropped root, so it asks for the text of the master key file when the keys are rotated. */
async function answerMasterKey(
  settings: Settings,
  name: ProcessName,
  message: unknown,
): Promise<MasterKeyAnswer | undefined> {
  if (name !== 'api' || (message as Partial<typeof masterKeyQuestion>).ask !== masterKeyQuestion.ask) {
    return undefined;
  }
  return { masterKey: await masterKeyText(settings, undefined).catch(() => undefined) };
}
