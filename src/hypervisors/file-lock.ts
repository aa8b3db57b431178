import { spawn } from 'node:child_process';
import { type FileHandle, mkdir, open, readFile, rm, stat, utimes } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import type { Logger } from '../lib/logger.ts';
import { killOrphanedTools } from './orphaned-tools.ts';
import { toolEnvironment } from './run-tool.ts';

export interface FileLockOptions {
  /** A lock holder that shows no sign of life for this long is killed; in milliseconds, at least the longest lease. */
  readonly patienceMs: number;
  readonly logger: Logger | undefined;
}

/** A lock that this process has until it releases it, or ends. */
export interface FileLock {
  /** The lock stays taken while any process has this descriptor open. */
  readonly descriptor: number;
  release(): Promise<void>;
}

/** Patience with the tools of a holder that was killed, in units of `patienceMs`: nearly all tools end sooner. */
const toolPatience = 6;
/** How often a holder touches its lock file within `patienceMs`. */
const signsOfLife = 4;

/**
 * Takes a lock that no other process on the node can have at the same time: flock(2) on a file that this process keeps
 * open, so the kernel releases it if the process ends. While the lock is taken, waits as long as its holder touches the
 * file. A holder whose heartbeat stops (suspended or hung) is killed, so that it cannot resume stale work; so are, later,
 * tools that have outlived their holder and do not end.
 */
export async function takeFileLock(file: string, options: FileLockOptions): Promise<FileLock> {
  for (;;) {
    const lock = await attempt(file, options, async (handle) => {
      const watch = watchHolder(file, options);
      return flock(handle, file, ['-x']).finally(() => {
        clearInterval(watch);
      });
    });
    // Undefined if the former holder removed the file on its release: the name now belongs to another file, or none.
    if (lock !== undefined) return lock;
  }
}

/** Like {@link takeFileLock}, but undefined if the lock is taken or being released at this moment. */
export function tryFileLock(file: string, options: FileLockOptions): Promise<FileLock | undefined> {
  return attempt(file, options, (handle) => flock(handle, file, ['-x', '-n']));
}

async function attempt(
  file: string,
  options: FileLockOptions,
  take: (handle: FileHandle) => Promise<boolean>,
): Promise<FileLock | undefined> {
  await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
  const handle = await open(file, 'a+', 0o600);
  try {
    if ((await take(handle)) && (await isSameFile(file, handle))) {
      return await startHeartbeat(file, handle, options);
    }
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  return undefined;
}

async function startHeartbeat(
  file: string,
  handle: FileHandle,
  { patienceMs }: FileLockOptions,
): Promise<FileLock> {
  await handle.truncate();
  await handle.write(`${process.pid} ${(await startTime(process.pid)) ?? ''}\n`);
  const heartbeat = setInterval(() => {
    const now = new Date();
    // If this keeps failing, the act under the lock fails too.
    utimes(file, now, now).catch(() => undefined);
  }, patienceMs / signsOfLife);
  return {
    descriptor: handle.fd,
    async release() {
      clearInterval(heartbeat);
      // Removed while still locked: a file of this name can't be another holder's.
      await rm(file, { force: true });
      await handle.close();
    },
  };
}

async function isSameFile(file: string, handle: FileHandle): Promise<boolean> {
  const [named, opened] = await Promise.all([stat(file).catch(() => undefined), handle.stat()]);
  return named?.ino === opened.ino;
}

/**
 * Node has no flock(2). The flock(1) tool takes the lock on the descriptor that it inherits; the lock belongs to the
 * open file, so this process keeps it after the tool has ended.
 * @returns false if `-n` found it taken.
 */
function flock(handle: FileHandle, file: string, options: readonly string[]): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn('flock', [...options, '3'], {
      env: toolEnvironment,
      stdio: ['ignore', 'ignore', 'ignore', handle.fd],
    });
    child.once('error', (cause: NodeJS.ErrnoException) => {
      const remedy = cause.code === 'ENOENT' ? ': install the package util-linux' : '';
      reject(new HypervisorError(`flock could not be run${remedy}`, { cause }));
    });
    child.once('exit', (code, signal) => {
      if (code === 0 || code === 1) resolve(code === 0);
      else reject(new HypervisorError(`flock on ${file} failed (${signal ?? `exit code ${code}`})`));
    });
  });
}

/**
 * Kills the holder of a lock, or the tools that it has left, if its file did not change in many checks. Checks are counted instead of time: a process
 * that was itself suspended has not been watching.
 */
function watchHolder(file: string, { patienceMs, logger }: FileLockOptions): NodeJS.Timeout {
  const everyMs = patienceMs / 20;
  let last = '';
  let unchangedChecks = 0;
  return setInterval(() => {
    void (async () => {
      const [seen, text] = await Promise.all([
        stat(file).catch(() => undefined),
        readFile(file, 'utf8').catch(() => ''),
      ]);
      const sign = `${seen?.ino ?? ''} ${seen?.mtimeMs ?? ''} ${text}`;
      unchangedChecks = sign === last ? unchangedChecks + 1 : 0;
      last = sign;
      if (unchangedChecks * everyMs < patienceMs) return;
      const [, pid, started] = /^(\d+) (\d+)\n$/.exec(text) ?? [];
      const holder = Number(pid);
      if (pid === undefined || holder === process.pid) return;
      // The pid may be another process's by now, if the holder has ended and others are before us in the queue.
      if ((await startTime(holder)) !== started) {
        if (unchangedChecks * everyMs < toolPatience * patienceMs) return;
        unchangedChecks = 0;
        const tools = await killOrphanedTools(holder, file);
        if (tools.length > 0) {
          logger?.warn(
            { tools, lock: file },
            'Tools of a worker that has ended had a host locked, and did not end; killed them',
          );
        }
        return;
      }
      unchangedChecks = 0;
      logger?.warn(
        { pid: holder, lock: file },
        'The process that has locked a host shows no sign of life; killing it',
      );
      process.kill(holder, 'SIGKILL');
    })().catch((error: unknown) => {
      logger?.warn({ err: error, lock: file }, 'A silent lock holder could not be killed; trying again');
    });
  }, everyMs);
}

/** When a process was started, in clock ticks since boot (proc(5), stat, field 22); undefined if it has ended. */
async function startTime(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The second field, the name, is in parentheses and may contain anything.
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19];
}
