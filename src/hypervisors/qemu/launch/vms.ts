import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, chown, mkdir, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Logger } from '../../../lib/logger.ts';
import { exists } from '../../../lib/exists.ts';
import { toolEnvironment } from '../../run-tool.ts';
import { deviceStateUri, type DiskChain, type Memory, qemuCommand } from './arguments.ts';
import type { Cgroups } from './cgroup.ts';
import { createStderrLog } from './stderr-log.ts';
import type { GuestImage } from '../image/guest-image.ts';
import { vmFacts } from '../integrity/facts.ts';
import type { Jail } from './jail.ts';
import { kvmGroups } from '../node/kvm.ts';
import type { Facts, Manifests } from '../integrity/manifest.ts';
import type { QemuOptions } from '../options.ts';
import type { HostLayout } from '../layout.ts';
import { tap } from '../names.ts';
import { type Qmp, withQmp } from './qmp.ts';
import { receiveInto } from '../memory/receive.ts';
import { killLeakedProcesses, processesOf } from './leaked-processes.ts';
import { compare, toDigestLine } from '../integrity/verify.ts';
import { errorMessage } from '../../../lib/error-message.ts';

/** What a machine is started with, besides where it is. */
export interface Launch {
  readonly shape: HostShape;
  readonly image: GuestImage;
  readonly memory: Memory;
  /** It begins stopped, to be loaded; else it boots. */
  readonly incoming: boolean;
  readonly disk: DiskChain;
  /** Open descriptor of a template's sealed memory. */
  readonly memoryDescriptor?: number;
  /** Open descriptor of the template's device state. */
  readonly stateDescriptor?: number;
}

/** What a running machine was made from: the digests of its files, by their paths. */
export type SourceDigests = ReadonlyMap<string, string>;

const launchTimeoutMs = 20_000;
/** A guest's whole memory on its way to a busy disk, or from it. */
const memoryTimeoutMs = 10 * 60 * 1000;

/** Starts QEMU processes and speaks with them. */
export interface Vms {
  /** Starts QEMU; returns once its monitor can be spoken to. The guest of a cold boot runs from then on. */
  launch(place: HostLayout, launch: Launch): Promise<void>;
  /** Loads the device state into a machine that was launched with a template's memory; lets it run, or holds it. */
  load(place: HostLayout, then: 'run' | 'hold'): Promise<void>;
  /** Lets the guest's processors run. */
  run(place: HostLayout): Promise<void>;
  /** Stops them. */
  pause(place: HostLayout): Promise<void>;
  /**
   * Stops them, and writes device state and memory to a file. The machine can go on afterwards, or be ended; also
   * where it fails, and then the file is to be wiped.
   */
  save(place: HostLayout, file: string, shape: HostShape): Promise<void>;
  /**
   * Writes down what the machine that runs is made of, to be held against it later.
   * @throws HypervisorError where it does not run as it was to.
   */
  writeDown(place: HostLayout, launch: Launch, madeFrom: SourceDigests): Promise<void>;
  /** Stops the guest for ever and writes its device state; its memory is in the file that it was launched with. */
  freeze(place: HostLayout, deviceState: string, shape: HostShape): Promise<void>;
  /** Whether the guest's processors run; false also where there is no QEMU at all. */
  isRunning(place: HostLayout): Promise<boolean>;
  /** @throws HypervisorError with QEMU's last words, where it has ended. */
  requireAlive(place: HostLayout): Promise<void>;
  /** The machine has gone: nothing that it said is kept. */
  forget(id: string): void;
}

export function createVms(
  options: Pick<QemuOptions, 'site' | 'libexecDirectory' | 'accelerator'>,
  cgroups: Cgroups,
  jail: Jail,
  manifests: Manifests,
  logger: Logger,
): Vms {
  const complaints = createStderrLog(logger);
  const lastWords = (place: HostLayout) => complaints.lastWords(place.id);
  const failure = (place: HostLayout, what: string, cause?: unknown) => {
    const said = lastWords(place);
    return new HypervisorError(`${what}${said === '' ? '' : `: ${said}`}`, { cause });
  };

  const commandOf = (place: HostLayout, { shape, image, memory, incoming, disk }: Launch) =>
    qemuCommand({
      name: `berth-${options.site}-${place.id}`,
      accelerator: options.accelerator,
      shape,
      image,
      memory,
      incoming,
      disk,
    });

  /** Two at one disk would ruin it. */
  async function endStrays(place: HostLayout): Promise<void> {
    const strays = await processesOf(place);
    if (strays.length === 0) return;
    logger.error(
      { machine: place.id, processes: strays },
      'Processes of a machine ran outside of its control group; they are ended before it is started',
    );
    await killLeakedProcesses(place);
  }

  /** What the host's user needs besides its own group. */
  const extraGroups = async () => (options.accelerator === 'kvm' ? kvmGroups() : []);

  async function spawnQemu(place: HostLayout, launch: Launch): Promise<ChildProcess> {
    await endStrays(place);
    const folders = await cgroups.make(place.id, launch.shape);
    await mkdir(place.runDirectory, { recursive: true, mode: 0o700 });
    await makeExchange(place);
    await Promise.all([place.qmpSocket, place.agentSocket].map((socket) => rm(socket, { force: true })));
    complaints.begin(place.id);
    const { command, files } = commandOf(place, launch);
    const made = launch.memory.kind === 'file' ? await open(launch.memory.path, 'r+') : undefined;
    const child = spawn(
      'perl',
      [
        path.join(options.libexecDirectory, 'berth-launch'),
        folders.join(','),
        place.netnsPath,
        tap,
        [place.uid, ...(await extraGroups())].join(':'),
        String(largestFile(launch.shape)),
        place.qmpSocket,
        place.agentSocket,
        ...files.map((file) => `${file.access}:${file.path}`),
        '--',
        ...jail.command(command, place.exchangeDirectory),
      ],
      {
        cwd: '/',
        env: toolEnvironment,
        // It outlives the worker, and Ctrl-C is not for it.
        detached: true,
        stdio: [
          'ignore',
          'ignore',
          'pipe',
          made?.fd ?? launch.memoryDescriptor ?? 'ignore',
          launch.stateDescriptor ?? 'ignore',
        ],
      },
    );
    await made?.close();
    child.unref();
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaints.hear(place.id, text);
    });
    // A pipe of a child is a socket, whose type here does not say so.
    (child.stderr as unknown as { unref(): void } | null)?.unref();
    return child;
  }

  return {
    async launch(place, launch) {
      const child = await spawnQemu(place, launch);
      let ended: string | undefined;
      child.once('error', (error) => (ended = error.message));
      child.once('close', (code, signal) => (ended = signal ?? `exit code ${code}`));
      const deadline = performance.now() + launchTimeoutMs;
      while (!(await exists(place.agentSocket))) {
        if (ended !== undefined) throw failure(place, `QEMU did not start (${ended})`);
        if (performance.now() > deadline) throw failure(place, 'QEMU did not start in time');
        await delay(2);
      }
      try {
        await withQmp(place.qmpSocket, (qmp) => qmp.execute('query-status'));
      } catch (cause) {
        // Its complaint says more than the broken conversation; it comes a moment later.
        for (let waited = 0; ended === undefined && waited < 1000; waited += 10) await delay(10);
        throw failure(place, 'QEMU did not start', cause);
      }
    },

    run: (place) =>
      withQmp(place.qmpSocket, async (qmp) => {
        await qmp.execute('cont');
      }),

    async load(place, then) {
      try {
        const talk = async (qmp: Qmp) => {
          await shareMemory(qmp);
          await migrate(qmp, 'migrate-incoming', deviceStateUri);
          if (then === 'run') await qmp.execute('cont');
        };
        await withQmp(place.qmpSocket, talk, { timeoutMs: memoryTimeoutMs });
      } catch (cause) {
        // A load that fails ends QEMU, and its complaint comes a moment later.
        for (let waited = 0; lastWords(place) === '' && waited < 500; waited += 10) await delay(10);
        const reason = errorMessage(cause);
        throw failure(place, `The template could not be restored (${reason})`, cause);
      }
    },

    async writeDown(place, launch, madeFrom) {
      const facts = await vmFacts(place, cgroups);
      requireAsOrdered(facts, place, commandOf(place, launch).command, await extraGroups());
      await manifests.write(place.manifest, {
        hostId: place.id,
        madeAt: new Date().toISOString(),
        facts: { ...facts, digests: [...madeFrom].map(([file, digest]) => toDigestLine(file, digest)) },
      });
    },

    pause: (place) =>
      withQmp(place.qmpSocket, async (qmp) => {
        await qmp.execute('stop');
      }),

    async save(place, file, shape) {
      const most = { bytes: largestSaved(shape), ms: memoryTimeoutMs };
      const receiver = await receiveInto(file, place.stateSocket, place.uid, most);
      const giveUp = new AbortController();
      receiver.received.catch(() => {
        giveUp.abort();
      });
      try {
        const send = withQmp(
          place.qmpSocket,
          async (qmp) => {
            await qmp.execute('stop');
            await shareMemory(qmp);
            // Nothing else is sent meanwhile: the default of 32 MiB/s would let a tenant wait.
            await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 4 * 1024 ** 3 });
            await migrate(qmp, 'migrate', `unix:${place.stateSocket}`);
          },
          { timeoutMs: memoryTimeoutMs, giveUp: giveUp.signal },
        );
        // What was refused says more than the conversation that ended for it.
        await send.catch(async (error: unknown) => {
          if (giveUp.signal.aborted) await receiver.received;
          throw error;
        });
        await receiver.received;
      } finally {
        await receiver.close();
      }
    },

    async freeze(place, deviceState, shape) {
      await this.save(place, deviceState, shape);
      await withQmp(place.qmpSocket, (qmp) => qmp.execute('quit'));
    },

    async isRunning(place) {
      if ((await cgroups.processes(place.id)).length === 0) return false;
      try {
        const status = await withQmp(place.qmpSocket, (qmp) => qmp.execute('query-status'));
        return (status as { running?: boolean }).running === true;
      } catch {
        return false;
      }
    },

    async requireAlive(place) {
      if ((await cgroups.processes(place.id)).length > 0) return;
      throw failure(place, 'The virtual machine has ended');
    },

    forget: (id) => {
      complaints.forget(id);
    },
  };
}

/** What is written down is what was asked for, not what happens to run. */
function requireAsOrdered(
  facts: Facts,
  place: HostLayout,
  command: readonly string[],
  extraGroups: readonly number[],
): void {
  // The kernel sorts them.
  const groups = [place.uid, ...extraGroups].sort((one, other) => one - other);
  const expected: Facts = {
    argv: command.map((argument, index) => `${index}: ${argument}`),
    user: [
      `Uid: ${Array(4).fill(place.uid).join(' ')}`,
      `Gid: ${Array(4).fill(place.uid).join(' ')}`,
      `Groups: ${groups.join(' ')}`,
    ],
    privileges: [
      ...['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'].map((set) => `Cap${set}: 0000000000000000`),
      'NoNewPrivs: 1',
      'Seccomp: 2',
    ],
  };
  const [wrong] = compare(expected, facts);
  if (wrong === undefined) return;
  throw new HypervisorError(`The machine does not run as it was to: ${wrong.part}: ${wrong.detail}`);
}

async function makeExchange(place: HostLayout): Promise<void> {
  await mkdir(path.dirname(place.exchangeDirectory), { recursive: true, mode: 0o755 });
  await mkdir(place.exchangeDirectory, { recursive: true, mode: 0o700 });
  await chmod(place.exchangeDirectory, 0o700);
  await chown(place.exchangeDirectory, place.uid, place.uid);
}

/**
 * What no file of a machine outgrows, in bytes: a full disk with its tables (qcow2 needs 10 bytes a cluster of
 * 64 KiB), or the memory of a template.
 */
export function largestFile({ diskGib, memoryMib }: HostShape): number {
  return Math.max(Math.ceil(diskGib * 1024 ** 3 * 1.01) + 64 * 1024 ** 2, memoryMib * 1024 ** 2);
}

/**
 * What a machine's memory and device state come to when they are written out, in bytes: each page has a header of a
 * few bytes, and devices have less than a megabyte.
 */
export function largestSaved({ memoryMib }: HostShape): number {
  return Math.ceil(memoryMib * 1.01 + 32) * 1024 ** 2;
}

/** What is in the shared memory file is not copied into the stream. */
async function shareMemory(qmp: Qmp): Promise<void> {
  await qmp.execute('migrate-set-capabilities', {
    capabilities: [
      { capability: 'x-ignore-shared', state: true },
      { capability: 'events', state: true },
    ],
  });
}

async function migrate(qmp: Qmp, command: 'migrate' | 'migrate-incoming', uri: string): Promise<void> {
  let status = '';
  const over = qmp.event('MIGRATION', (data) => {
    status = String(data['status']);
    return status === 'completed' || status === 'failed';
  });
  // Awaited below; it may also fail while the command is under way.
  over.catch(() => undefined);
  await qmp.execute(command, { uri });
  await over;
  if (status !== 'completed') throw new HypervisorError(`QEMU's ${command} ended as ${status}`);
}
