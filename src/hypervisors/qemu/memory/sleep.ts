import { open, rename } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { exists } from '../../../lib/exists.ts';
import type { Cgroups } from '../launch/cgroup.ts';
import { requireDiskSpace, wipeDisk } from '../disk/disks.ts';
import { type HostRecord, writeHostRecord } from '../host-record.ts';
import { largestSaved, type Vms } from '../launch/vms.ts';
import type { HostLayout } from '../layout.ts';

/**
 * Hosts whose processors stand still. A paused one keeps its QEMU; a suspended one is a file beside its disk.
 *
 * Which of the two is true can always be told: where QEMU lives it is the truth, and an image of the memory is of
 * no use, unless the record says `suspended`. Then QEMU is one that was being loaded from the image, and whose guest
 * has not run. The image goes before a guest runs that was loaded from it: it would not fit the disk any more.
 */
export interface Sleep {
  /** Stops the processors of a machine that lives. */
  pause(at: HostLayout, record: HostRecord): Promise<void>;
  /** Writes the memory of a machine that lives to disk, and ends it. Where that fails, nothing is left of the file. */
  suspend(at: HostLayout, record: HostRecord): Promise<void>;
  /**
   * Lets a machine go on that is paused or suspended; one that runs goes on running.
   * @param load starts a machine that holds what is in this image, and does not run.
   * @returns false where there is nothing to go on with.
   */
  resume(at: HostLayout, record: HostRecord, load: (image: string) => Promise<void>): Promise<boolean>;
  /** Leaves nothing of a memory that was written to disk. */
  wipe(at: HostLayout): Promise<void>;
  /** Whether the machine is a file. */
  isSuspended(at: HostLayout): Promise<boolean>;
}

/** A tenant's memory: readable by root alone, and wiped when it goes. */
const imageOf = (at: HostLayout) => `${at.directory}/memory`;
const attemptOf = (at: HostLayout) => `${imageOf(at)}.new`;

export function createSleep(parts: { cgroups: Cgroups; machines: Vms }): Sleep {
  const { cgroups, machines } = parts;
  const isAlive = async (at: HostLayout) => (await cgroups.processes(at.id)).length > 0;
  const hasImage = (at: HostLayout) => exists(imageOf(at));

  return {
    async pause(at, record) {
      await machines.pause(at);
      await writeHostRecord(at.record, { ...record, power: 'paused' });
    },

    async suspend(at, record) {
      const attempt = attemptOf(at);
      await wipeDisk(attempt);
      await requireDiskSpace(at.directory, largestSaved(record.shape));
      try {
        await machines.save(at, attempt, record.shape);
        await persist(attempt);
      } catch (error) {
        await wipeDisk(attempt);
        throw error;
      }
      await rename(attempt, imageOf(at));
      await cgroups.kill(at.id);
      await writeHostRecord(at.record, { ...record, power: 'suspended' });
    },

    async resume(at, record, load) {
      if ((await isAlive(at)) && record.power === 'suspended') await cgroups.kill(at.id);
      if (!(await isAlive(at))) {
        if (!(await hasImage(at))) return false;
        await load(imageOf(at));
      }
      if (record.power !== 'running') await writeHostRecord(at.record, { ...record, power: 'paused' });
      await wipeDisk(imageOf(at));
      await machines.run(at);
      if (record.power !== 'running') await writeHostRecord(at.record, { ...record, power: 'running' });
      return true;
    },

    async wipe(at) {
      await wipeDisk(imageOf(at));
      await wipeDisk(attemptOf(at));
    },

    isSuspended: async (at) => !(await isAlive(at)) && (await hasImage(at)),
  };
}

/** Waits until the file is on the disk, so that a power cut after this does not lose it. */
async function persist(file: string): Promise<void> {
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } catch (cause) {
    throw new HypervisorError(`${file} could not be written to the disk`, { cause });
  } finally {
    await handle.close();
  }
}
