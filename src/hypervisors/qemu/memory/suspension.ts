import type { Logger } from '../../../lib/logger.ts';
import type { Cgroups } from '../launch/cgroups.ts';
import { requireDiskSpace, wipeDisk } from '../disk/disks.ts';
import { boundsOf, type HostRecord, writeHostRecord } from '../host-record.ts';
import { LoadFailedError } from '../launch/load-failed-error.ts';
import { largestSaved } from '../launch/sizes.ts';
import type { Vms } from '../launch/vms.ts';
import type { HostLayout } from '../layout.ts';
import type { TemplateStore } from '../template/template-store.ts';
import { emptyBase, templateBase } from './memory-base.ts';
import type { MemoryKey } from './memory-key.ts';
import { type SavedMemory, suspendedMemory } from './suspended-memory.ts';

/** Memory that could not be loaded this often is unusable, even if each of the reasons may have passed. */
const mostFailedLoads = 3;

/**
 * `resumed`: the VM runs. `nothing`: there is neither a QEMU process nor memory. `memory lost`: the memory can't be loaded
 * and was set aside; the host is stopped.
 */
export type ResumeOutcome = 'resumed' | 'nothing' | 'memory lost';

/**
 * Paused and suspended hosts. A paused host keeps its QEMU process; a suspended one is a memory image beside its disk: what
 * differs from the memory of its template, or from empty memory if it was booted.
 *
 * A live QEMU is authoritative: ignore the memory image unless the host's record says `suspended`. In that case QEMU
 * was being loaded from the image and its guest has not run. The image is wiped before a guest that was loaded from
 * it runs, because it would not match the disk any more.
 */
export interface Suspension {
  /** Stops the CPUs of a running VM. */
  pause(layout: HostLayout, record: HostRecord): Promise<void>;
  /** Writes the memory of a VM to disk and kills it. If that fails, the file is wiped. */
  suspend(layout: HostLayout, record: HostRecord): Promise<void>;
  /**
   * Resumes a paused or suspended VM; a running one is left alone.
   * @param load starts a paused VM from this memory.
   * @throws HypervisorError if the memory could not be loaded for a reason that may pass.
   */
  resume(
    layout: HostLayout,
    record: HostRecord,
    load: (memory: SavedMemory) => Promise<void>,
  ): Promise<ResumeOutcome>;
  /** Wipes memory that could not be loaded, once the host runs without it. */
  wipeUnusable(layout: HostLayout): Promise<void>;
  /** Wipes the memory image and any unfinished one. */
  wipe(layout: HostLayout): Promise<void>;
  /** Whether there is a memory image and no QEMU process. */
  isSuspended(layout: HostLayout): Promise<boolean>;
}

/** @param deps.keyOf what the memory of this host's VM needs to be loaded. */
export function createSuspension(deps: {
  cgroups: Cgroups;
  vms: Vms;
  templates: Pick<TemplateStore, 'load'>;
  keyOf: (record: HostRecord) => MemoryKey;
  /** Undefined: the usual one. */
  diskReserveMib?: number | undefined;
  logger: Logger;
}): Suspension {
  const { cgroups, vms, templates, keyOf, diskReserveMib: reserveMib, logger } = deps;
  const isAlive = async (layout: HostLayout) => (await cgroups.processes(layout.id)).length > 0;

  /**
   * Loads the memory into a paused VM. The memory is verified meanwhile, because the tenant waits; the guest runs later.
   * @returns why it can't be loaded; undefined if it was.
   */
  async function loadMemory(
    layout: HostLayout,
    record: HostRecord,
    load: (memory: SavedMemory) => Promise<void>,
  ): Promise<string | undefined> {
    const memory = suspendedMemory(layout);
    const obstacle = await memory.obstacle(keyOf(record));
    if (obstacle !== undefined) return obstacle;
    const [damage, failure] = await Promise.all([
      memory.damage(),
      load({ image: memory.image, template: await memory.template() }).then(
        () => undefined,
        (error: unknown) => error,
      ),
    ]);
    if (damage === undefined && failure === undefined) return undefined;
    await cgroups.kill(layout.id);
    if (damage !== undefined) return damage;
    // A VM that could not even be started would not boot from its disk either.
    if (!(failure instanceof LoadFailedError)) throw failure;
    if (failure.isRefused) return failure.message;
    if ((await memory.countFailedLoad()) < mostFailedLoads) throw failure;
    return `loading it has failed ${mostFailedLoads} times: ${failure.message}`;
  }

  /** Recorded first: from then on it is known what happened, and the memory that is still there is found unusable again. */
  async function setAside(layout: HostLayout, record: HostRecord, why: string): Promise<void> {
    logger.error(
      { event: 'host.memory_lost', host: layout.id, why },
      'The memory of a suspended host can not be loaded; the host boots from its disk instead, as after a power cut',
    );
    const memoryLost = { at: new Date().toISOString(), why };
    await writeHostRecord(layout.record, { ...record, power: 'running', memoryLost });
    await suspendedMemory(layout).setAside();
  }

  return {
    async pause(layout, record) {
      await vms.pause(layout);
      await writeHostRecord(layout.record, { ...record, power: 'paused' });
    },

    async suspend(layout, record) {
      const memory = suspendedMemory(layout);
      await wipeDisk(memory.attempt);
      await requireDiskSpace(layout.directory, { reserveMib, bytes: largestSaved(record.shape) });
      // Its disk is an overlay of the template's, which therefore stays as long as the host.
      const template =
        record.startedFrom === 'boot' || record.template === undefined
          ? undefined
          : await templates.load(record.template);
      const base = template === undefined ? emptyBase : templateBase(template.memory);
      try {
        const { shape } = record;
        const bounds = boundsOf(record);
        // It wakes with what it has now.
        if (record.growing !== undefined) await vms.grow(layout, bounds.start, shape);
        await vms.save(layout, memory.attempt, { bounds, shape }, base);
        await memory.keep(keyOf(record), template && { key: template.key, digest: template.memoryDigest });
      } catch (error) {
        await wipeDisk(memory.attempt);
        throw error;
      }
      await cgroups.kill(layout.id);
      await writeHostRecord(layout.record, { ...record, power: 'suspended' });
    },

    async resume(layout, record, load) {
      const memory = suspendedMemory(layout);
      if ((await isAlive(layout)) && record.power === 'suspended') await cgroups.kill(layout.id);
      if (!(await isAlive(layout))) {
        if (!(await memory.exists())) return 'nothing';
        const why = await loadMemory(layout, record, load);
        if (why !== undefined) {
          await setAside(layout, record, why);
          return 'memory lost';
        }
      }
      if (record.power !== 'running') await writeHostRecord(layout.record, { ...record, power: 'paused' });
      await memory.wipe();
      await vms.run(layout);
      if (record.power !== 'running') await writeHostRecord(layout.record, { ...record, power: 'running' });
      return 'resumed';
    },

    wipeUnusable: (layout) => suspendedMemory(layout).wipeUnusable(),
    wipe: (layout) => suspendedMemory(layout).wipe(),
    isSuspended: async (layout) => !(await isAlive(layout)) && (await suspendedMemory(layout).exists()),
  };
}
