import { AsyncLocalStorage } from 'node:async_hooks';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import { createBoundedBuffer } from '../lib/bounded-buffer.ts';
import { settleWithin } from '../lib/settle-within.ts';
import { requireNotAbandoned } from './abandoned-acts.ts';
import { runByVariable } from './orphaned-tools.ts';

/** Tools inherit nothing of this process's environment, so no secret in it can reach them. */
export const toolEnvironment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

/**
 * Descriptors that every tool inherits which is run within `descriptorsForTools.run`: the lock file of the host that
 * is being acted on (host-locks.ts). flock(2) keeps a lock while any process has the descriptor open, so if this
 * process is killed, the host stays locked until its last tool has ended, and no other worker acts on it meanwhile. A tool
 * that hangs is killed in the end (file-lock.ts).
 */
export const descriptorsForTools = new AsyncLocalStorage<readonly number[]>();

export interface RunOptions {
  /** Written to the tool's standard input. */
  readonly input?: string | Buffer;
  /** The tool is killed, and fails, after this many milliseconds. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Receives each line of standard output as it comes; the result is then only the last lines. */
  readonly onLine?: (line: string) => void;
}

/** How much of a tool's last output an error quotes, in characters. */
const longestQuote = 4_000;
/** A tool that prints more to standard output is killed; in bytes. */
const longestOutput = 16 * 1024 * 1024;
/**
 * How long a killed tool may take to end, in milliseconds. Longer takes one that waits in the kernel for a disk, or that
 * left its output open to a process outside its group.
 */
const killTimeoutMs = 5_000;

/**
 * Runs a tool to its end. It inherits the lock descriptors of the host that this call acts on
 * ({@link descriptorsForTools}), and so prolongs the lock if it outlives this process.
 * @returns its standard output.
 * @throws HypervisorError with what it printed, if it fails, is not installed, or takes too long.
 */
export function runTool(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { input, timeoutMs = 30_000, signal, onLine } = options;
  const tooLate = `took longer than ${timeoutMs / 1000} s`;
  const atDeadline = (): never => {
    throw new HypervisorError(`${program} ${tooLate}, and could not be killed`);
  };
  return settleWithin<string>(timeoutMs + killTimeoutMs, atDeadline, (settle) => {
    requireNotAbandoned();
    const child = spawn(program, args, {
      env: { ...toolEnvironment, [runByVariable]: String(process.pid) },
      // A new process group, so that killing it also kills what the tool has started.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe', ...(descriptorsForTools.getStore() ?? [])],
      // The first three are pipes; Node's types only know that for a stdio of exactly three.
    }) as ChildProcessWithoutNullStreams;
    const output = createBoundedBuffer(longestOutput);
    let lastLines = '';
    let errorOutput = '';
    let ended: string | undefined;
    const end = (reason: string) => {
      ended ??= reason;
      if (child.pid !== undefined) {
        try {
          process.kill(-child.pid, 'SIGKILL');
        } catch {
          // It has just ended by itself.
        }
      }
    };
    const abort = () => {
      end('was stopped');
    };
    const timer = setTimeout(end, timeoutMs, tooLate);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted === true) abort();

    let partial = '';
    if (onLine === undefined) {
      child.stdout.on('data', (chunk: Buffer) => {
        if (!output.append(chunk)) end('printed too much');
      });
    } else {
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        const lines = (partial + text).split('\n');
        partial = (lines.pop() ?? '').slice(-longestQuote);
        for (const line of lines) {
          lastLines = `${lastLines}${line}\n`.slice(-longestQuote);
          onLine(line);
        }
      });
    }
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errorOutput = (errorOutput + text).slice(-longestQuote);
    });
    const fail = (problem: string, cause?: Error) => {
      const quote = [errorOutput, lastLines].join('\n').trim();
      settle.reject(
        new HypervisorError(`${program} ${problem}${quote === '' ? '' : `: ${quote}`}`, {
          cause,
          summary: `${program} ${problem}`,
        }),
      );
    };
    child.on('error', (error: NodeJS.ErrnoException) => {
      fail(
        error.code === 'ENOENT'
          ? 'is not installed (`npm start` installs it)'
          : `did not start: ${error.message}`,
        error,
      );
    });
    child.on('close', (code, killedBy) => {
      if (ended !== undefined) fail(ended);
      else if (code === 0)
        settle.resolve(onLine === undefined ? output.content().toString('utf8') : lastLines);
      else fail(`failed (${killedBy ?? `exit code ${code}`})`);
    });
    // A tool that ends without reading its input explains why on stderr, which is more useful than EPIPE.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
    return () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      child.stdout.destroy();
      child.stderr.destroy();
    };
  });
}
