import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { removeInstallationTraces } from '../../tools/lib/residue.ts';
import { compiled } from './build.ts';
import { eventually } from './eventually.ts';
import { testSlot } from './test-slot.ts';

/** A broker as an operator runs it, as child processes, with simulated hosts. */
export interface SimulatedProcess {
  readonly stateDirectory: string;
  readonly port: number;
  readonly mgmtPort: number;
  readonly gatewayPort: number;
  /** Everything that its processes have printed so far. */
  readonly output: () => string;
  readonly pid: () => number;
  /**
   * @param alone starts this process only.
   * @throws Error with its output if it ends before it is ready.
   */
  start(alone?: 'api' | 'worker'): Promise<void>;
  /** Sends SIGINT and waits for its end. */
  stop(): Promise<void>;
  /** Stops it and removes its state. */
  dispose(): Promise<void>;
}

/** @param offset 0 to 2: keeps the ports of test files apart. @param more environment variables. */
export async function makeSimulatedProcess(
  offset: number,
  more: Record<string, string> = {},
): Promise<SimulatedProcess> {
  const main = path.join(await compiled(), 'main.js');
  const stateDirectory = await mkdtemp('/var/tmp/berth-sim-');
  await chmod(stateDirectory, 0o755);
  const port = 17_170 + testSlot * 100 + offset * 10;
  let child: ChildProcess | undefined;
  let output = '';
  const hasEnded = () => child === undefined || child.exitCode !== null || child.signalCode !== null;

  async function stop(): Promise<void> {
    if (!hasEnded()) child?.kill('SIGINT');
    await eventually('the broker has ended', hasEnded, { deadlineMs: 60_000 });
  }

  return {
    stateDirectory,
    port,
    gatewayPort: port + 1,
    mgmtPort: port + 2,
    output: () => output,
    pid: () => child?.pid ?? 0,
    stop,
    async start(alone) {
      // Only the last child would be stopped in the end.
      if (!hasEnded()) throw new Error('the broker of an earlier test still runs');
      const from = output.length;
      const started = spawn(process.execPath, alone === undefined ? [main] : [main, alone], {
        env: {
          PATH: process.env['PATH'],
          BERTH_STATE_DIR: stateDirectory,
          BERTH_HYPERVISOR: 'simulated',
          BERTH_EXTERNAL_HOST: '127.0.0.1',
          BERTH_PORT: String(port),
          BERTH_GATEWAY_PORT: String(port + 1),
          BERTH_MGMT_PORT: String(port + 2),
          BERTH_UID_BASE: String(660_000 + testSlot * 10_000 + offset * 1000),
          BERTH_SYNC_WAIT_MS: '20000',
          BERTH_LOG_LEVEL: 'debug',
          ...more,
          ...(alone && { DATABASE_URL_FILE: path.join(stateDirectory, `database-url.${alone}`) }),
        },
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      child = started;
      for (const stream of [started.stdout, started.stderr]) {
        stream.setEncoding('utf8').on('data', (text: string) => (output += text));
      }
      await eventually(
        'the broker is ready',
        () => {
          if (started.exitCode !== null) throw new Error(`the broker ended: ${output.slice(from)}`);
          return output.slice(from).includes(alone === undefined ? 'Berth is ready.' : '"msg":"Ready.');
        },
        { deadlineMs: 100_000, everyMs: 50 },
      );
    },
    async dispose() {
      await stop();
      const site = await readFile(path.join(stateDirectory, 'site'), 'utf8').catch(() => undefined);
      if (site !== undefined) await removeInstallationTraces(site.trim());
      await rm(stateDirectory, { recursive: true, force: true });
    },
  };
}

/** The text of a secret file in the state directory. */
export const secretFile = async (broker: SimulatedProcess, name: string) =>
  (await readFile(path.join(broker.stateDirectory, name), 'utf8')).trim();
