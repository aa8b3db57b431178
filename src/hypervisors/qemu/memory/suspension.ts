import { open, rename } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { exists } from '../../../lib/exists.ts';
import type { Cgroups } from '../launch/cgroups.ts';
import { requireDiskSpace, wipeDisk } from '../disk/disks.ts';
import { type HostRecord, writeHostRecord } from '../host-record.ts';
import { largestSaved } from '../launch/sizes.ts';
import type { Vms } from '../launch/vms.ts';
import type { HostLayout } from '../layout.ts';

/**
 * Paused and suspended hosts. A paused host keeps its QEMU process; a suspended one is a memory image beside its disk.
 *
 * A live QEMU is authoritative: ignore the memory image unless the host's record says `suspended`. In that case QEMU
 * was being loaded from the image and its guest has not run. The image is wiped before a guest that was loaded from
 * it runs, because it would not match the disk any more.
 */
export interface Suspension {
  /** Stops the CPUs of a running VM. */
  pause(layout: HostLayout, record: HostRecord): Promise<void>;
  /** Writes the memory of a running VM to disk and kills it. If that fails, the file is wiped. */
  suspend(layout: HostLayout, record: HostRecord): Promise<void>;
  /**
   * Resumes a paused or suspended VM; a running one is left alone.
   * @param load starts a paused VM from this memory image.
   * @returns false if there is neither a QEMU process nor a memory image.
   */
  resume(layout: HostLayout, record: HostRecord, load: (image: string) => Promise<void>): Promise<boolean>;
  /** Wipes the memory image and any unfinished one. */
  wipe(layout: HostLayout): Promise<void>;
  /** Whether there is a memory image and no QEMU process. */
  isSuspended(layout: HostLayout): Promise<boolean>;
}

/** A tenant's memory: readable by root only, and wiped before it is removed. */
const imageOf = (layout: HostLayout) => `${layout.directory}/memory`;
const attemptOf = (layout: HostLayout) => `${imageOf(layout)}.new`;

export function createSuspension(deps: { cgroups: Cgroups; vms: Vms }): Suspension {
  const { cgroups, vms } = deps;
  const isAlive = async (layout: HostLayout) => (await cgroups.processes(layout.id)).length > 0;
  const hasImage = (layout: HostLayout) => exists(imageOf(layout));

  return {
    async pause(layout, record) {
      await vms.pause(layout);
      await writeHostRecord(layout.record, { ...record, power: 'paused' });
    },

    async suspend(layout, record) {
      const attempt = attemptOf(layout);
      await wipeDisk(attempt);
      await requireDiskSpace(layout.directory, largestSaved(record.shape));
      try {
        await vms.save(layout, attempt, record.shape);
        await flush(attempt);
      } catch (error) {
        await wipeDisk(attempt);
        throw error;
      }
      await rename(attempt, imageOf(layout));
      await cgroups.kill(layout.id);
      await writeHostRecord(layout.record, { ...record, power: 'suspended' });
    },

    async resume(layout, record, load) {
      if ((await isAlive(layout)) && record.power === 'suspended') await cgroups.kill(layout.id);
      if (!(await isAlive(layout))) {
        if (!(await hasImage(layout))) return false;
        await load(imageOf(layout));
      }
      if (record.power !== 'running') await writeHostRecord(layout.record, { ...record, power: 'paused' });
      await wipeDisk(imageOf(layout));
      await vms.run(layout);
      if (record.power !== 'running') await writeHostRecord(layout.record, { ...record, power: 'running' });
      return true;
    },

    async wipe(layout) {
      await wipeDisk(imageOf(layout));
      await wipeDisk(attemptOf(layout));
    },

    isSuspended: async (layout) => !(await isAlive(layout)) && (await hasImage(layout)),
  };
}

/** Flushes the file to disk, so that a later power cut does not lose it (fsync(2)). */
async function flush(file: string): Promise<void> {
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } catch (cause) {
    throw new HypervisorError(`${file} could not be written to the disk`, { cause });
  } finally {
    await handle.close();
  }
}
