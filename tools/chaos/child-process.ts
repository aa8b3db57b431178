import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';

/** One process of a role, which is started again whenever it ends unasked, as `npm start` does. */
export interface RoleProcess {
  readonly name: string;
  /** Undefined while it is being started again. */
  pid(): number | undefined;
  /** Resolves when it is ready, the first time or again. */
  ready(): Promise<void>;
  /** False where none runs to be sent it. */
  signal(signal: NodeJS.Signals): boolean;
  /** How often it has ended unasked. */
  ends(): number;
  /** How it has ended by itself after it had been ready, each time, in words. */
  crashes(): readonly string[];
  stop(): Promise<void>;
}

const startTimeoutMs = 120_000;

/** @param logFile gets everything that it prints. */
export function startRole(
  name: string,
  command: readonly string[],
  environment: Readonly<Record<string, string>>,
  logFile: string,
): RoleProcess {
  let child: ChildProcess | undefined;
  let readiness: Promise<void> = Promise.resolve();
  let ends = 0;
  const crashes: string[] = [];
  let stopping = false;

  const begin = () => {
    const started = spawn(process.execPath, command, {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    child = started;
    let said = '';
    let isReady = false;
    for (const stream of [started.stdout, started.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-2000);
        appendFileSync(logFile, text);
      });
    }
    readiness = new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`${name} did not start in time: ${said}`));
      }, startTimeoutMs);
      started.once('message', () => {
        clearTimeout(timer);
        isReady = true;
        resolve();
      });
      started.once('exit', (code, signal) => {
        clearTimeout(timer);
        if (child === started) child = undefined;
        if (stopping) {
          resolve();
          return;
        }
        ends += 1;
        // Killed it was by us, or by its successor on a host. Before it is ready it may find no Postgres.
        if (isReady && signal !== 'SIGKILL')
          crashes.push(`ended by itself (${signal ?? `code ${code ?? ''}`}): ${said.slice(-500)}`);
        begin();
        // Who waits for this one waits for its successor.
        readiness.then(resolve, reject);
      });
    });
    readiness.catch(() => undefined);
  };
  begin();

  return {
    name,
    pid: () => child?.pid,
    ready: () => readiness,
    signal: (signal) => child?.kill(signal) ?? false,
    ends: () => ends,
    crashes: () => crashes,
    async stop() {
      stopping = true;
      const last = child;
      if (last === undefined) return;
      const ended = new Promise<void>((resolve) => {
        last.once('exit', () => {
          resolve();
        });
      });
      last.kill('SIGCONT');
      last.kill('SIGTERM');
      const timer = setTimeout(() => last.kill('SIGKILL'), 20_000);
      await ended;
      clearTimeout(timer);
    },
  };
}
