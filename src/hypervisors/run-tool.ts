import { AsyncLocalStorage } from 'node:async_hooks';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';

/** Tools inherit nothing of our environment, so no secret in it can reach them. */
export const toolEnvironment = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8' };

/** Descriptors that the tools inherit which are run within. */
export const descriptorsForTools = new AsyncLocalStorage<readonly number[]>();

export interface RunOptions {
  /** Written to the tool's standard input. */
  readonly input?: string | Buffer;
  /** After so many milliseconds the tool is ended, and has failed. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Told each line of standard output as it comes; nothing is returned then. */
  readonly onLine?: (line: string) => void;
}

/** What a tool printed is kept up to here, from its end, in characters. */
const mostKept = 4_000;
const mostOutput = 16 * 1024 * 1024;

/**
 * Runs a tool to its end.
 * @returns its standard output.
 * @throws HypervisorError with what it printed, where it fails, is missing, or takes too long.
 */
export function runTool(program: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { input, timeoutMs = 30_000, signal, onLine } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      env: toolEnvironment,
      // A group of its own, so that what the tool has started ends with it.
      detached: true,
      stdio: ['pipe', 'pipe', 'pipe', ...(descriptorsForTools.getStore() ?? [])],
      // The first three are pipes, which the types only see where there are no more.
    }) as ChildProcessWithoutNullStreams;
    let output = '';
    let complaint = '';
    let ended: string | undefined;
    const end = (reason: string) => {
      ended = reason;
      if (child.pid !== undefined) {
        try {
          process.kill(-child.pid, 'SIGKILL');
        } catch {
          // It has ended by itself in this very moment.
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
        if (output.length > mostOutput) end('printed too much');
        return;
      }
      const lines = (partial + text).split('\n');
      partial = (lines.pop() ?? '').slice(-mostKept);
      for (const line of lines) {
        output = `${output}${line}\n`.slice(-mostKept);
        onLine(line);
      }
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-mostKept);
    });
    const settle = (problem: string | undefined, cause?: Error) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      if (problem === undefined) {
        resolve(output);
        return;
      }
      const said = [complaint, onLine === undefined ? '' : output].join('\n').trim();
      reject(new HypervisorError(`${program} ${problem}${said === '' ? '' : `: ${said}`}`, { cause }));
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
    // A tool that ends without reading its input has its own complaint, which says more than EPIPE.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}
