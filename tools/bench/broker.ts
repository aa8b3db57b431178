import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { readSettings, type Settings } from '../../src/config/settings.ts';
import { destroyHosts } from '../../src/hypervisors/open.ts';
import { quietLogger } from './quiet-logger.ts';
import { removeInstallationTraces } from '../lib/residue.ts';
import { putAwayOnce } from './interruption.ts';

/** A broker of the bench's own, so that nothing else is measured and nothing of the operator's is touched. */
export interface BenchBroker {
  readonly settings: Settings;
  stop(): Promise<void>;
}

/** Kept from run to run: the guest image and templates take minutes to make. */
const kept = ['images', 'templates', 'disks'];
const startTimeoutMs = 20 * 60 * 1000;

/**
 * Starts a broker with this catalog, beside whatever else runs.
 * @param cacheDirectory where guest image and templates are kept.
 * @param progress is told what it says while it starts.
 * @param settings of the environment that are to be other than the bench's own.
 */
export async function startBroker(
  catalog: object,
  cacheDirectory: string,
  progress: (line: string) => void,
  settings: Readonly<Record<string, string>> = {},
): Promise<BenchBroker> {
  const stateDirectory = await mkdtemp('/var/tmp/berth-bench-');
  await chmod(stateDirectory, 0o755);
  for (const name of kept) {
    await mkdir(path.join(cacheDirectory, name), { recursive: true, mode: 0o755 });
    await symlink(path.join(cacheDirectory, name), path.join(stateDirectory, name));
  }
  const catalogFile = path.join(stateDirectory, 'catalog.yaml');
  await writeFile(catalogFile, JSON.stringify(catalog));
  const environment = {
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    BERTH_STATE_DIR: stateDirectory,
    BERTH_PORT: '17080',
    BERTH_GATEWAY_PORT: '17081',
    BERTH_MGMT_PORT: '17082',
    BERTH_HOST_NETWORK: '10.214.0.0/16',
    BERTH_UID_BASE: '640000',
    BERTH_PUBLISHED_PORTS: '31000-31999',
    BERTH_SYNC_WAIT_MS: '25000',
    BERTH_LOG_LEVEL: 'warn',
    BERTH_CATALOG: catalogFile,
    ...settings,
  };
  const main = fileURLToPath(new URL('../../src/main.js', import.meta.url));
  const child = spawn(process.execPath, [main], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
    // Ctrl-C is for the bench, which then puts the broker away, and its hosts before.
    detached: true,
  });
  const stop = putAwayOnce(async () => {
    await ended(child);
    const site = await readFile(path.join(stateDirectory, 'site'), 'utf8').catch(() => undefined);
    if (site !== undefined) {
      await destroyHosts(readSettings(environment), quietLogger);
      await removeInstallationTraces(site.trim());
    }
    await rm(stateDirectory, { recursive: true, force: true });
  });
  try {
    await ready(child, progress);
  } catch (error) {
    await stop();
    throw error;
  }
  return { settings: readSettings(environment), stop };
}

function ready(child: ChildProcess, progress: (line: string) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = '';
    const timer = setTimeout(() => {
      reject(new Error(`the broker did not start in time: ${said}`));
    }, startTimeoutMs);
    const settle = (act: () => void) => {
      clearTimeout(timer);
      act();
    };
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-4000);
        const last = /berth: ([^\n]+)\n[^\n]*$/.exec(text)?.[1];
        if (last !== undefined) progress(last);
        if (said.includes('Berth is ready.')) settle(resolve);
      });
    }
    child.once('exit', () => {
      settle(() => {
        reject(new Error(`the broker ended: ${said}`));
      });
    });
  });
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const over = new Promise<void>((resolve) => {
    child.once('exit', () => {
      resolve();
    });
  });
  child.kill('SIGINT');
  await over;
}
