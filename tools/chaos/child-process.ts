import { type ChildProcess, spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';

/** One of Berth's processes, restarted whenever it ends unasked, as `npm start` does. */
export interface ChaosProcess {
  readonly name: string;
  /** Undefined while it is being restarted. */
  pid(): number | undefined;
  /** Resolves when it is ready, also after a restart. */
  ready(): Promise<void>;
  /** False if no process runs. */
  signal(signal: NodeJS.Signals): boolean;
  /** Kills it, and starts no successor before `bringUp`. */
  takeDown(): Promise<void>;
  bringUp(): void;
  /** Number of times that it ended unasked. */
  ends(): number;
  /** Descriptions of the times when it ended by itself after it had been ready. */
  crashes(): readonly string[];
  stop(): Promise<void>;
}

const startTimeoutMs = 120_000;

/** @param logFile receives its output. */
export function startChaosProcess(
  name: string,
  command: readonly string[],
  environment: Readonly<Record<string, string>>,
  logFile: string,
): ChaosProcess {
  let child: ChildProcess | undefined;
  let readiness: Promise<void> = Promise.resolve();
  let ends = 0;
  const crashes: string[] = [];
  let stopping = false;
  let isDown = false;

  const start = () => {
    const started = spawn(process.execPath, command, {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    child = started;
    let output = '';
    let isReady = false;
    for (const stream of [started.stdout, started.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-2000);
        appendFileSync(logFile, text);
      });
    }
    readiness = new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`${name} did not start in time: ${output}`));
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
        if (isDown) return;
        ends += 1;
        // SIGKILL came from us or from its successor on a host. Before it is ready, Postgres may be unavailable.
        if (isReady && signal !== 'SIGKILL')
          crashes.push(`ended by itself (${signal ?? `code ${code ?? ''}`}): ${output.slice(-500)}`);
        start();
        // Waiting for this process continues with its successor.
        readiness.then(resolve, reject);
      });
    });
    readiness.catch(() => undefined);
  };
  start();

  /** Signals the process and waits for its end. */
  async function end(signal: NodeJS.Signals): Promise<void> {
    const last = child;
    if (last === undefined) return;
    const ended = new Promise<void>((resolve) => {
      last.once('exit', () => {
        resolve();
      });
    });
    last.kill('SIGCONT');
    last.kill(signal);
    const timer = setTimeout(() => last.kill('SIGKILL'), 20_000);
    await ended;
    clearTimeout(timer);
  }

  return {
    name,
    pid: () => child?.pid,
    ready: () => readiness,
    signal: (signal) => child?.kill(signal) ?? false,
    ends: () => ends,
    crashes: () => crashes,
    async takeDown() {
      isDown = true;
      await end('SIGKILL');
    },
    bringUp() {
      if (!isDown) return;
      isDown = false;
      start();
    },
    async stop() {
      stopping = true;
      await end('SIGTERM');
    },
  };
}
