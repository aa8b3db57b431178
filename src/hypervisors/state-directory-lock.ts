import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import { type FileLock, tryFileLock } from './file-lock.ts';

/**
 * Makes sure that one supervisor at a time uses a state directory: flock(2) on a file in it. The kernel releases the
 * lock when the process ends, however it ends.
 * @throws HypervisorError if another process has the lock. Nothing was changed.
 */
export async function lockStateDirectory(stateDirectory: string): Promise<Pick<FileLock, 'release'>> {
  const file = path.join(stateDirectory, 'supervisor.lock');
  // Nobody waits for this lock, so nobody is killed for being silent.
  const lock = await tryFileLock(file, { patienceMs: 60_000, logger: undefined });
  if (lock !== undefined) return lock;
  const [pid = ''] = (await readFile(file, 'utf8').catch(() => '')).split(' ');
  throw new HypervisorError(
    `another Berth${pid === '' ? '' : ` (process ${pid})`} uses ${stateDirectory}: stop it, or set BERTH_STATE_DIR to another folder`,
  );
}
