import { readdir, readFile, stat } from 'node:fs/promises';

/**
 * Name of the environment variable that says which process runs a tool: a tool outlives a process that is killed, and its
 * time limit ends with that process.
 */
export const runByVariable = 'BERTH_RUN_BY';

/**
 * Kills the tools that a process which has ended left running with a lock file open; their own child processes, too.
 * @param runBy the id of the process that has ended.
 * @returns the ids of the killed processes.
 */
export async function killOrphanedTools(runBy: number, lockFile: string): Promise<readonly number[]> {
  const wanted = `${runByVariable}=${runBy}`;
  const { dev, ino } = await stat(lockFile);
  const isLockFile = (file: string) =>
    stat(file).then(
      (found) => found.dev === dev && found.ino === ino,
      () => false,
    );
  const killed: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    // A process that has just ended, or that is another user's, is not one of them.
    const environment = await readFile(`/proc/${name}/environ`, 'utf8').catch(() => '');
    if (!environment.split('\0').includes(wanted)) continue;
    const descriptors = await readdir(`/proc/${name}/fd`).catch(() => []);
    const has = await Promise.all(descriptors.map((one) => isLockFile(`/proc/${name}/fd/${one}`)));
    if (!has.includes(true)) continue;
    process.kill(Number(name), 'SIGKILL');
    killed.push(Number(name));
  }
  return killed;
}
