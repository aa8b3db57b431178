import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { readSettings, type Settings } from '../../../src/config/settings.ts';
import { destroyHosts } from '../../../src/hypervisors/open.ts';
import { quietLogger } from './quiet-logger.ts';
import { withoutElapsed } from '../../../src/lib/progress.ts';
import { removeInstallationTraces } from '../../lib/residue.ts';
import { stopChild } from './child-process.ts';
import { registerCleanup } from './cleanup.ts';

/** A broker with its own state, ports and addresses: the operator's installation is neither measured nor touched. */
export interface BenchBroker {
  readonly settings: Settings;
  stop(): Promise<void>;
}

/** Reused by later runs: the guest image and templates take minutes to make. */
const cachedDirectories = ['images', 'templates', 'disks'];
const startTimeoutMs = 20 * 60 * 1000;

/**
 * Starts a broker with this catalog; other installations on the node may run at the same time.
 * @param cacheDirectory contains the guest image and the templates, for later runs too.
 * @param progress receives the lines that the broker prints while it starts.
 * @param settings environment variables that override the bench's defaults.
 */
export async function startBroker(
  catalog: object,
  cacheDirectory: string,
  progress: (line: string) => void,
  settings: Readonly<Record<string, string>> = {},
): Promise<BenchBroker> {
  const stateDirectory = await mkdtemp('/var/tmp/berth-bench-');
  await chmod(stateDirectory, 0o755);
  for (const name of cachedDirectories) {
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
  const main = fileURLToPath(new URL('../../../src/main.js', import.meta.url));
  const child = spawn(process.execPath, [main], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
    // In its own process group, so that Ctrl-C reaches only the bench, which stops the broker and destroys its hosts.
    detached: true,
  });
  const stop = registerCleanup(async () => {
    await stopChild(child, 'SIGINT');
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
    let output = '';
    const timer = setTimeout(() => {
      reject(new Error(`the broker did not start within ${startTimeoutMs / 60_000} min: ${output}`));
    }, startTimeoutMs);
    const settle = (action: () => void) => {
      clearTimeout(timer);
      action();
    };
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-4000);
        const last = /berth: ([^\n]+)\n[^\n]*$/.exec(text)?.[1];
        if (last !== undefined) progress(withoutElapsed(last));
        if (output.includes('Berth is ready.')) settle(resolve);
      });
    }
    child.once('exit', () => {
      settle(() => {
        reject(new Error(`the broker ended while it started: ${output}`));
      });
    });
  });
}
