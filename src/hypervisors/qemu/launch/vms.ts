import { spawn, type ChildProcess } from 'node:child_process';
import { mkdir, open, rm } from 'node:fs/promises';
import { totalmem } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { qemuOf, vmFacts } from '../integrity/facts.ts';
import type { Manifests } from '../integrity/manifest.ts';
import { limitDiskRate } from '../disk/disk-rate.ts';
import { toDigestLine } from '../integrity/verify.ts';
import { deviceStateUri, qemuCommand } from './arguments.ts';
import type { Cgroups } from './cgroups.ts';
import type { Jail } from './jail.ts';
import { growVm, measureSize, type MeasuredSize } from './growth.ts';
import { requireMatchesLaunchSpec } from './launch-check.ts';
import type { LaunchSpec } from './launch-spec.ts';
import { LoadFailedError } from './load-failed-error.ts';
import { killLeakedProcesses, processesOf } from './leaked-processes.ts';
import { howItEnded } from './how-it-ended.ts';
import { isRefusal, migrate, shareMemory } from './migration.ts';
import { oomScore } from './oom-score.ts';
import { type Qmp, withQmp } from './qmp.ts';
import { largest, largestFile } from './sizes.ts';
import { createStderrLog } from './stderr-log.ts';
import { renewKernelSecrets } from '../memory/kernel-secrets.ts';
import { emptyBase, type MemoryBase } from '../memory/memory-base.ts';
import { type GrownSize, saveState } from '../memory/save-state.ts';
import { kvmGroups } from '../node/kvm.ts';
import type { QemuOptions, VmSize } from '../options.ts';
import { type HostLayout, makeExchangeDirectory } from '../layout.ts';
import { tap } from '../names.ts';
import { errorMessage } from '../../../lib/error-message.ts';
import { requireNotAbandoned } from '../../abandoned-acts.ts';
import { toolEnvironment } from '../../run-tool.ts';
import { exists } from '../../../lib/exists.ts';
import type { Logger } from '../../../lib/logger.ts';

/** The files that a running VM was made from: their digests by path. */
export type SourceDigests = ReadonlyMap<string, string>;

const launchTimeoutMs = 20_000;

/** Covers writing a guest's whole memory to a busy disk, or reading it back. */
const memoryTimeoutMs = 10 * 60 * 1000;

/** Starts QEMU processes and controls them through their monitors. */
export interface Vms {
  /** Starts QEMU; returns once its monitor answers. The guest of a cold boot runs from then on. */
  launch(layout: HostLayout, launch: LaunchSpec): Promise<void>;
  /**
   * Loads the device state into a VM that was launched with a template's memory or its own; runs it, or leaves it paused.
   * @param template of a restored VM: physical addresses of secrets to overwrite first (kernel-secrets.ts), and what the VM
   *   grows to before it runs.
   * @throws LoadFailedError
   */
  load(
    layout: HostLayout,
    then: 'run' | 'pause',
    template?: {
      readonly kernelSecrets: readonly number[];
      readonly start: VmSize;
      readonly shape: HostShape;
    },
  ): Promise<void>;
  /** Adds memory and disk to a running VM (growth.ts). */
  grow(layout: HostLayout, start: VmSize, shape: HostShape): Promise<void>;
  /** What the VM has now. */
  sizeOf(layout: HostLayout): Promise<MeasuredSize>;
  /** Resumes the guest's CPUs. */
  run(layout: HostLayout): Promise<void>;
  /** Stops the guest's CPUs. */
  pause(layout: HostLayout): Promise<void>;
  /**
   * Stops the guest's CPUs, and writes to a file its device state and what its memory differs in from the base. Afterwards,
   * also after a failure, the VM can be resumed or killed. After a failure the caller wipes the file.
   */
  save(layout: HostLayout, file: string, size: GrownSize, base: MemoryBase): Promise<void>;
  /**
   * Writes the manifest of a running VM, which integrity checks compare it with later.
   * @throws HypervisorError if the process does not match its launch spec.
   */
  writeManifest(layout: HostLayout, launch: LaunchSpec, sources: SourceDigests): Promise<void>;
  /**
   * Stops the guest, writes its device state and the used part of its added memory, and ends QEMU; the memory that it was
   * started with is in its file.
   */
  freeze(layout: HostLayout, deviceState: string, size: GrownSize): Promise<void>;
  /** Whether the guest's CPUs run; false also if there is no QEMU process. */
  isRunning(layout: HostLayout): Promise<boolean>;
  /** @throws HypervisorError with QEMU's last output if it has ended. */
  requireAlive(layout: HostLayout): Promise<void>;
  /** Drops the recorded output of a VM that does not exist any more. */
  forget(id: string): void;
}

export function createVms(
  options: Pick<
    QemuOptions,
    | 'site'
    | 'libexecDirectory'
    | 'accelerator'
    | 'memoryOvercommit'
    | 'hostLimits'
    | 'diskReserveMib'
    | 'room'
  >,
  cgroups: Cgroups,
  jail: Jail,
  manifests: Manifests,
  logger: Logger,
): Vms {
  const saving = { timeoutMs: memoryTimeoutMs, reserveMib: options.diskReserveMib };
  const totalMib = totalmem() / 1024 ** 2;
  const stderrLog = createStderrLog(logger);
  /** By id; those of former workers are not known. */
  const started = new Map<string, ChildProcess>();
  const lastOutput = (layout: HostLayout) => stderrLog.lastOutput(layout.id);
  const failure = (layout: HostLayout, what: string, cause?: unknown) => {
    const output = lastOutput(layout);
    return new HypervisorError(`${what}${output === '' ? '' : `: ${output}`}`, { cause, summary: what });
  };

  const commandOf = (layout: HostLayout, { bounds, image, memory, incoming, disk }: LaunchSpec) =>
    qemuCommand({
      name: `berth-${options.site}-${layout.id}`,
      accelerator: options.accelerator,
      bounds,
      image,
      memory,
      incoming,
      disk,
    });

  /** Two QEMU processes that write to one disk would corrupt it. */
  async function killLeaked(layout: HostLayout): Promise<void> {
    const leaked = await processesOf(layout);
    if (leaked.length === 0) return;
    logger.error(
      { vm: layout.id, processes: leaked },
      'Processes of a VM run outside its control group; killing them before the VM starts',
    );
    await killLeakedProcesses(layout);
  }

  /** Groups that the host's user needs besides its own. */
  const extraGroups = async () => (options.accelerator === 'kvm' ? kvmGroups() : []);

  async function spawnQemu(layout: HostLayout, launch: LaunchSpec): Promise<ChildProcess> {
    await killLeaked(layout);
    const folders = await cgroups.make(layout.id, launch.shape);
    await mkdir(layout.runDirectory, { recursive: true, mode: 0o700 });
    await makeExchangeDirectory(layout);
    await Promise.all([layout.qmpSocket, layout.agentSocket].map((socket) => rm(socket, { force: true })));
    stderrLog.begin(layout.id);
    const { command, files } = commandOf(layout, launch);
    requireNotAbandoned();
    const memoryFile = launch.memory.kind === 'file' ? await open(launch.memory.path, 'r+') : undefined;
    const child = spawn(
      'perl',
      [
        path.join(options.libexecDirectory, 'berth-launch'),
        folders.join(','),
        String(oomScore(launch.shape, { totalMib, overcommit: options.memoryOvercommit ?? 1 })),
        layout.netnsPath,
        tap,
        [layout.uid, ...(await extraGroups())].join(':'),
        [largestFile(launch.shape), largestFile(largest(launch.shape, options.room))].join(':'),
        layout.qmpSocket,
        layout.agentSocket,
        ...files.map((file) => `${file.access}:${file.path}`),
        '--',
        ...jail.command(command, layout.exchangeDirectory),
      ],
      {
        cwd: '/',
        env: toolEnvironment,
        // QEMU outlives the worker and must not get the terminal's Ctrl-C.
        detached: true,
        stdio: [
          'ignore',
          'ignore',
          'pipe',
          memoryFile?.fd ?? launch.memoryDescriptor ?? 'ignore',
          launch.stateDescriptor ?? 'ignore',
        ],
      },
    );
    await memoryFile?.close();
    child.unref();
    started.set(layout.id, child);
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderrLog.append(layout.id, text);
    });
    // A child's pipe is a socket, but its type does not say so.
    (child.stderr as unknown as { unref(): void } | null)?.unref();
    return child;
  }

  const save: Vms['save'] = (layout, file, size, base) => saveState(layout, file, size, base, saving);

  return {
    async launch(layout, launch) {
      const child = await spawnQemu(layout, launch);
      let ended: string | undefined;
      child.once('error', (error) => (ended = error.message));
      child.once('close', (code, signal) => (ended = signal ?? `exit code ${code}`));
      const deadline = performance.now() + launchTimeoutMs;
      while (!(await exists(layout.agentSocket))) {
        if (ended !== undefined) throw failure(layout, `QEMU did not start (${ended})`);
        if (performance.now() > deadline) throw failure(layout, 'QEMU did not start in time');
        await delay(2);
      }
      try {
        await withQmp(layout.qmpSocket, async (qmp) => {
          await qmp.execute('query-status');
          if (options.hostLimits.disk !== undefined) await limitDiskRate(qmp, options.hostLimits.disk);
        });
      } catch (cause) {
        // QEMU's own error output, which arrives a moment later, says more than the broken connection.
        for (let waited = 0; ended === undefined && waited < 1000; waited += 10) await delay(10);
        throw failure(layout, 'QEMU did not start', cause);
      }
    },

    async run(layout) {
      await withQmp(layout.qmpSocket, (qmp) => qmp.execute('cont'));
    },

    async load(layout, then, template) {
      try {
        const pid = await qemuOf(layout, cgroups);
        const restore = async (qmp: Qmp) => {
          await shareMemory(qmp);
          await migrate(qmp, 'migrate-incoming', deviceStateUri);
          if (template !== undefined) {
            await renewKernelSecrets(qmp, pid, template.kernelSecrets);
            await growVm(qmp, template.start, template.shape);
          }
          if (then === 'run') await qmp.execute('cont');
        };
        await withQmp(layout.qmpSocket, restore, { timeoutMs: memoryTimeoutMs });
      } catch (cause) {
        // A failed load ends QEMU, whose error output arrives a moment later.
        for (let waited = 0; lastOutput(layout) === '' && waited < 500; waited += 10) await delay(10);
        const reason = errorMessage(cause);
        const { message } = failure(layout, `The VM could not be restored (${reason})`);
        throw new LoadFailedError(message, isRefusal(`${reason} ${lastOutput(layout)}`), { cause });
      }
    },

    async writeManifest(layout, launch, sources) {
      const facts = await vmFacts(layout, cgroups);
      requireMatchesLaunchSpec(facts, layout, commandOf(layout, launch).command, await extraGroups());
      await manifests.write(layout.manifest, {
        hostId: layout.id,
        madeAt: new Date().toISOString(),
        facts: { ...facts, digests: [...sources].map(([file, digest]) => toDigestLine(file, digest)) },
      });
    },

    async pause(layout) {
      await withQmp(layout.qmpSocket, (qmp) => qmp.execute('stop'));
    },

    grow: (layout, start, shape) => withQmp(layout.qmpSocket, (qmp) => growVm(qmp, start, shape)),

    sizeOf: (layout) => withQmp(layout.qmpSocket, measureSize),

    save,

    async freeze(layout, deviceState, size) {
      await save(layout, deviceState, size, emptyBase);
      await withQmp(layout.qmpSocket, (qmp) => qmp.execute('quit'));
    },

    async isRunning(layout) {
      if ((await cgroups.processes(layout.id)).length === 0) return false;
      try {
        const status = await withQmp(layout.qmpSocket, (qmp) => qmp.execute('query-status'));
        return (status as { running?: boolean }).running === true;
      } catch {
        return false;
      }
    },

    async requireAlive(layout) {
      if ((await cgroups.processes(layout.id)).length > 0) return;
      throw failure(layout, `The VM has ended${howItEnded(started.get(layout.id))}`);
    },

    forget: (id) => {
      stderrLog.forget(id);
      started.delete(id);
    },
  };
}
