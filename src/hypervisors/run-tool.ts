import { AsyncLocalStorage } from 'node:async_hooks';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';

/** Tools inherit nothing of this process's environment, so no secret in it can reach them. */
export const toolEnvironment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

/**
 * Descriptors that every tool inherits which is run within `descriptorsForTools.run`: the lock file of the host that
 * is being acted on (host-locks.ts). flock(2) keeps a lock while any process has the descriptor open, so if this
 * process is killed, the host stays locked until its last tool has ended, and no other worker acts on it meanwhile.
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
/** A tool that prints more to standard output is killed; in characters. */
const longestOutput = 16 * 1024 * 1024;

/**
 * Runs a tool to its end. It inherits the lock descriptors of the host that this call acts on
 * ({@link descriptorsForTools}), and so prolongs the lock if it outlives this process.
 * @returns its standard output.
 * @throws HypervisorError with what it printed, if it fails, is not installed, or takes too long.
 */
export function runTool(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { input, timeoutMs = 30_000, signal, onLine } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: toolEnvironment,
      // A new process group, so that killing it also kills what the tool has started.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe', ...(descriptorsForTools.getStore() ?? [])],
      // The first three are pipes; Node's types only know that for a stdio of exactly three.
    }) as ChildProcessWithoutNullStreams;
    let output = '';
    let errorOutput = '';
    let ended: string | undefined;
    const end = (reason: string) => {
      ended = reason;
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
    const timer = setTimeout(() => {
      end(`took longer than ${timeoutMs / 1000} s`);
    }, timeoutMs);
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted === true) abort();

    let partial = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (onLine === undefined) {
        output += text;
        if (output.length > longestOutput) end('printed too much');
        return;
      }
      const lines = (partial + text).split('\n');
      partial = (lines.pop() ?? '').slice(-longestQuote);
      for (const line of lines) {
        output = `${output}${line}\n`.slice(-longestQuote);
        onLine(line);
      }
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errorOutput = (errorOutput + text).slice(-longestQuote);
    });
    const settle = (problem: string | undefined, cause?: Error) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      if (problem === undefined) {
        resolve(output);
        return;
      }
      const quote = [errorOutput, onLine === undefined ? '' : output].join('\n').trim();
      reject(new HypervisorError(`${program} ${problem}${quote === '' ? '' : `: ${quote}`}`, { cause }));
    };
    child.on('error', (error: NodeJS.ErrnoException) => {
      settle(
        error.code === 'ENOENT'
          ? 'is not installed (`npm start` installs it)'
          : `did not start: ${error.message}`,
        error,
      );
    });
    child.on('close', (code, killedBy) => {
      if (ended !== undefined) settle(ended);
      else if (code === 0) settle(undefined);
      else settle(`failed (${killedBy ?? `exit code ${code}`})`);
    });
    // A tool that ends without reading its input explains why on stderr, which is more useful than EPIPE.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}
