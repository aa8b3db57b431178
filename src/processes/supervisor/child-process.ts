import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { processEnvironment } from '../../config/process-environment.ts';

export const processNames = ['gateway', 'worker', 'api'] as const;
export type ProcessName = (typeof processNames)[number];

const restartAfterMs = 1_000;
/** Longer than any process takes to stop: the worker waits up to 10 s for acts in progress (processes/worker.ts). */
const stopTimeoutMs = 30_000;

/** What a process tells the supervisor over IPC, besides the questions that {@link startChildProcess} passes on. */
export type ChildMessage =
  /** It has started. */
  | { readonly ready: string }
  /** What it prepares in the background. */
  | { readonly progress: string }
  /** Hosts can be made. */
  | { readonly prepared: true };

/** A process of Berth that is started again if it ends before `stop`. */
export interface SupervisedProcess {
  /** Resolves when it is ready for the first time; rejects if it ends before that. */
  readonly ready: Promise<void>;
  /** Resolves when it says for the first time that hosts can be made, as only the worker does. */
  readonly prepared: Promise<void>;
  /** Sends SIGTERM and waits for its end. A process that has not ended within 30 s is killed. */
  stop(): Promise<void>;
}

/**
 * @param deps.urlFile contains the connection string of the process.
 * @param deps.say prints a line for the operator.
 * @param deps.onProgress shows what it prepares in the background.
 * @param deps.answer answers other messages of the process over IPC; undefined sends nothing.
 */
export function startChildProcess(
  name: ProcessName,
  deps: {
    readonly urlFile: string;
    readonly say: (line: string) => void;
    readonly onProgress: (progress: string) => void;
    readonly answer: (message: unknown) => Promise<object | undefined>;
  },
): SupervisedProcess {
  const { urlFile, say, onProgress, answer } = deps;
  let child: ChildProcess | undefined;
  let ended: Promise<void> = Promise.resolve();
  let stopping = false;
  let restart: NodeJS.Timeout | undefined;
  let resolvePrepared: () => void = () => undefined;
  const prepared = new Promise<void>((resolve) => {
    resolvePrepared = resolve;
  });
  const ready = new Promise<void>((resolve, reject) => {
    let wasReady = false;
    const start = () => {
      const started = spawnProcess(name, urlFile);
      child = started;
      started.on('message', (message) => {
        const said = message as ChildMessage | { readonly ask: string };
        if ('ready' in said) {
          wasReady = true;
          resolve();
        } else if ('progress' in said) onProgress(said.progress);
        else if ('prepared' in said) resolvePrepared();
        else {
          void answer(said).then((reply) => {
            if (reply !== undefined && started.connected) started.send(reply);
          });
        }
      });
      ended = new Promise((resolveEnded) => {
        started.on('exit', (code, signal) => {
          resolveEnded();
          if (stopping) return;
          if (!wasReady) {
            reject(new Error(`the ${name} did not start; its output is above`));
            return;
          }
          say(
            `the ${name} has ended (${signal ?? `exit code ${code}`}); restarting it in ${restartAfterMs / 1000} s`,
          );
          restart = setTimeout(start, restartAfterMs);
        });
      });
    };
    start();
  });
  return {
    ready,
    prepared,
    async stop() {
      stopping = true;
      clearTimeout(restart);
      child?.kill('SIGTERM');
      const kill = setTimeout(() => {
        say(`the ${name} has not ended within ${stopTimeoutMs / 1000} s; killing it`);
        child?.kill('SIGKILL');
      }, stopTimeoutMs);
      await ended;
      clearTimeout(kill);
    },
  };
}

/** It gets Berth's settings, and no other variable of our environment. */
function spawnProcess(name: ProcessName, urlFile: string): ChildProcess {
  const main = fileURLToPath(new URL('../../main.js', import.meta.url));
  const [program, ...args] = withoutNewPrivileges(name, [process.execPath, main, name]);
  return spawn(program, args, {
    env: processEnvironment(urlFile),
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    // Ctrl-C signals every process of the terminal's group; we stop these ourselves, in order.
    detached: true,
  });
}

/** api and gateway can't regain the privileges they drop, not even through a set-user-ID program (no_new_privs). */
function withoutNewPrivileges(
  name: ProcessName,
  command: readonly [string, ...string[]],
): readonly [string, ...string[]] {
  return name === 'worker' || process.platform !== 'linux'
    ? command
    : ['setpriv', '--no-new-privs', ...command];
}
