import { spawn } from 'node:child_process';
import { type FileHandle, mkdir, open, readFile, rm, stat, utimes } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import type { Logger } from '../lib/logger.ts';
import { toolEnvironment } from './run-tool.ts';

export interface FileLockOptions {
  /**
   * How long a holder that shows no sign of life is waited for before its process is ended, in milliseconds:
   * as long as its leases last at most.
   */
  readonly patienceMs: number;
  readonly logger: Logger | undefined;
}

/** A lock that this process holds until it lets go, or ends. */
export interface FileLock {
  /** The lock stays taken for as long as any process has this descriptor open. */
  readonly descriptor: number;
  release(): Promise<void>;
}

/** A holder shows so many signs of life in the time that others have patience. */
const signsOfLife = 4;

/**
 * Takes a lock that no other process on this machine can hold at the same time. It is flock(2) on a file that
 * this process keeps open, so the kernel lets go of it whenever the process ends. Who finds it taken waits as
 * long as the holder touches the file; a holder that has stopped doing so (suspended, or hung) is ended, for
 * what it would do on waking up must not happen any more.
 */
export async function takeFileLock(file: string, options: FileLockOptions): Promise<FileLock> {
  for (;;) {
    const lock = await attempt(file, options, async (handle) => {
      const watch = watchHolder(file, options);
      return flock(handle, file, ['-x']).finally(() => {
        clearInterval(watch);
      });
    });
    // Undefined where who held it has removed the file on letting go; it is another one now.
    if (lock !== undefined) return lock;
  }
}

/** The same, but undefined where somebody holds it, or lets go of it at this moment. */
export function takeFileLockIfFree(file: string, options: FileLockOptions): Promise<FileLock | undefined> {
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
    if ((await take(handle)) && (await isStill(file, handle))) return await holdLocked(file, handle, options);
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  return undefined;
}

async function holdLocked(
  file: string,
  handle: FileHandle,
  { patienceMs }: FileLockOptions,
): Promise<FileLock> {
  await handle.truncate();
  await handle.write(`${process.pid} ${(await startTime(process.pid)) ?? ''}\n`);
  const alive = setInterval(() => {
    const now = new Date();
    // It can't fail for long without the act at hand failing too.
    utimes(file, now, now).catch(() => undefined);
  }, patienceMs / signsOfLife);
  return {
    descriptor: handle.fd,
    async release() {
      clearInterval(alive);
      // Before the lock is let go: nobody else can have taken a file of this name.
      await rm(file, { force: true });
      await handle.close();
    },
  };
}

async function isStill(file: string, handle: FileHandle): Promise<boolean> {
  const [named, opened] = await Promise.all([stat(file).catch(() => undefined), handle.stat()]);
  return named?.ino === opened.ino;
}

/**
 * Node can't call flock(2); `flock` does it on the descriptor that it is given, and as the lock belongs to the
 * open file, it stays with us when that child has gone. False where `-n` found it taken.
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
 * Ends the holder of a lock once it has shown no sign of life in many looks. Looks are counted, not time: who
 * was suspended itself has not been watching.
 */
function watchHolder(file: string, { patienceMs, logger }: FileLockOptions): NodeJS.Timeout {
  const everyMs = patienceMs / 20;
  let last = '';
  let silentLooks = 0;
  return setInterval(() => {
    void (async () => {
      const [seen, text] = await Promise.all([
        stat(file).catch(() => undefined),
        readFile(file, 'utf8').catch(() => ''),
      ]);
      const sign = `${seen?.ino ?? ''} ${seen?.mtimeMs ?? ''} ${text}`;
      silentLooks = sign === last ? silentLooks + 1 : 0;
      last = sign;
      if (silentLooks * everyMs < patienceMs) return;
      silentLooks = 0;
      const [, pid, started] = /^(\d+) (\d+)\n$/.exec(text) ?? [];
      const holder = Number(pid);
      // The number may be another process's by now, where the holder has ended and others wait before us.
      if (pid === undefined || holder === process.pid || (await startTime(holder)) !== started) return;
      logger?.warn(
        { pid: holder, lock: file },
        'A process that holds a host shows no sign of life: it is ended',
      );
      process.kill(holder, 'SIGKILL');
    })().catch((error: unknown) => {
      logger?.warn({ err: error, lock: file }, 'The holder of a lock could not be ended');
    });
  }, everyMs);
}

/** When a process was started, in clock ticks since boot (proc(5), stat, field 22); undefined where it has gone. */
async function startTime(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The second field, the name, is in brackets and may hold anything.
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19];
}
