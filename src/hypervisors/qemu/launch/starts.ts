import { type FileHandle, open, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { exists } from '../../../lib/exists.ts';
import type { DiskChain } from './arguments.ts';
import type { Cgroups } from './cgroup.ts';
import { type Digests, requireDigests } from '../integrity/digests.ts';
import { baseDiskDigest, createOverlay, ensureBaseDisk } from '../disk/disks.ts';
import { type GuestImage, readImage, readImageRecord } from '../image/guest-image.ts';
import { type HostRecord, writeHostRecord } from '../host-record.ts';
import type { Launch, Vms } from './vms.ts';
import type { QemuOptions } from '../options.ts';
import type { HostLayout } from '../layout.ts';
import { openOwnCopy } from '../memory/sealed-memory.ts';
import type { LoadedTemplate, TemplateStore } from '../template/templates.ts';

/**
 * How a host's machine comes to run: from its template, from its disk, or from the memory that it was suspended to.
 * Whatever it is made from is held against its digest before.
 */
export interface Starts {
  /** Gives the host an untouched disk: over the template's where there is one, else over an empty one. */
  newDisk(at: HostLayout, record: HostRecord): Promise<HostRecord>;
  /** For a machine that has never run: whatever an attempt that was killed has done to its disk goes. */
  freshDisk(at: HostLayout, found: HostRecord): Promise<HostRecord>;
  /** Over a fresh disk. @throws HypervisorError where it can't be restored; the next attempt boots cold. */
  restore(at: HostLayout, record: HostRecord, template: LoadedTemplate): Promise<void>;
  /** Boots a guest that has run; restores another one, or boots it where there is no template. */
  start(at: HostLayout, found: HostRecord): Promise<HostRecord>;
  /** Loads what a suspended machine has left, into one that holds it. */
  load(at: HostLayout, record: HostRecord, memoryImage: string): Promise<void>;
  /** Ends a machine whose launch was cut off: what is written down is not of it. Any other is left alone. */
  endHalfLaunched(at: HostLayout): Promise<void>;
}

/** Is there from before a machine is launched until it is written down. */
const launchMark = (at: HostLayout) => path.join(at.directory, 'launching');

/** Whether the guest has ever run on its disk. */
export const hasRun = ({ startedFrom, parked }: HostRecord) => startedFrom !== undefined && !parked;

export function createStarts(
  options: Pick<QemuOptions, 'stateDirectory' | 'libexecDirectory' | 'image' | 'pageSharing'>,
  parts: { cgroups: Cgroups; machines: Vms; templates: TemplateStore; digests: Digests },
): Starts {
  const { stateDirectory, image } = options;
  const { cgroups, machines, templates, digests } = parts;

  async function diskChain(at: HostLayout, record: HostRecord): Promise<DiskChain> {
    const base = await ensureBaseDisk(stateDirectory, record.baseDiskGib ?? record.shape.diskGib);
    const template =
      record.template === undefined
        ? undefined
        : path.join(templates.directory(record.template), 'disk.qcow2');
    return { own: at.disk, template, base };
  }

  async function newDisk(at: HostLayout, record: HostRecord): Promise<HostRecord> {
    const template = await templates.load(templates.key(record.planName, record.shape));
    const base = await ensureBaseDisk(stateDirectory, record.shape.diskGib);
    const fresh = { ...record, image: image.digest, template: template?.key, diskIsUsed: false };
    // On record before the disk is: a template that is in use is not removed.
    await writeHostRecord(at.record, fresh);
    await createOverlay(
      at.disk,
      template === undefined ? { file: base, format: 'raw' } : { file: template.disk, format: 'qcow2' },
      record.shape.diskGib,
      at.uid,
    );
    return fresh;
  }

  /** Starts a machine that runs as it was to, which is written down, or none. */
  async function launch(
    at: HostLayout,
    ordered: Launch,
    madeFrom: ReadonlyMap<string, string>,
    incoming?: 'run' | 'hold',
  ): Promise<void> {
    await writeFile(launchMark(at), '');
    try {
      await machines.launch(at, ordered);
      if (incoming !== undefined) await machines.load(at, incoming);
      await machines.writeDown(at, ordered, madeFrom);
    } catch (error) {
      await endHalfLaunched(at);
      throw error;
    }
    await rm(launchMark(at));
  }

  async function endHalfLaunched(at: HostLayout): Promise<void> {
    if (!(await exists(launchMark(at)))) return;
    await cgroups.kill(at.id);
    await rm(launchMark(at));
  }

  async function restore(at: HostLayout, record: HostRecord, template: LoadedTemplate): Promise<void> {
    const disk = await diskChain(at, record);
    const madeFrom = new Map([...(await requireChain(image, disk)), ...template.digests]);
    const own = options.pageSharing === 'none' ? await ownMemory(at, record, template) : undefined;
    let state: FileHandle | undefined;
    try {
      state = await open(template.deviceState, 'r');
      await launch(
        at,
        {
          shape: record.shape,
          image,
          memory: { kind: 'template' },
          incoming: true,
          disk,
          memoryDescriptor: (own ?? template.memory).fd,
          stateDescriptor: state.fd,
        },
        madeFrom,
        'run',
      );
    } catch (error) {
      // The next attempt boots cold: slower, but it works.
      templates.distrust(template.key);
      throw error;
    } finally {
      await own?.close();
      await state?.close();
    }
  }

  const imageOf = async (record: HostRecord): Promise<GuestImage> =>
    record.image === image.digest ? image : readImage(path.join(stateDirectory, 'images', record.image));

  /** Made from the sealed memory, which has been held against its digest, and charged to the host. */
  async function ownMemory(
    at: HostLayout,
    record: HostRecord,
    { memory }: LoadedTemplate,
  ): Promise<FileHandle> {
    const folders = await cgroups.make(at.id, record.shape);
    return openOwnCopy(options.libexecDirectory, `/proc/${process.pid}/fd/${memory.fd}`, folders);
  }

  async function boot(at: HostLayout, record: HostRecord): Promise<void> {
    const own = await imageOf(record);
    const disk = await diskChain(at, record);
    const madeFrom = new Map(await requireChain(own, disk));
    if (record.template !== undefined && disk.template !== undefined) {
      const expected = await templates.diskDigest(record.template);
      await requireDigests(digests, [[disk.template, expected]], "The template's disk");
      madeFrom.set(disk.template, expected);
    }
    await launch(
      at,
      { shape: record.shape, image: own, memory: { kind: 'own' }, incoming: false, disk },
      madeFrom,
    );
  }

  /**
   * The digests of what every machine is made from, checked.
   * @throws HypervisorError which names the file that has been altered.
   */
  async function requireChain(own: GuestImage, disk: DiskChain): Promise<ReadonlyMap<string, string>> {
    const { files } = await readImageRecord(own.directory);
    const expected = new Map([
      [own.rootfs, files.rootfs],
      [own.kernel, files.vmlinuz],
      [own.initrd, files.initrd],
    ]);
    await requireDigests(digests, expected, 'The guest image');
    const base = [disk.base, await baseDiskDigest(disk.base)] as const;
    await requireDigests(digests, [base], 'The empty disk');
    return expected.set(...base);
  }

  async function load(at: HostLayout, record: HostRecord, memoryImage: string): Promise<void> {
    const own = await imageOf(record);
    const disk = await diskChain(at, record);
    const madeFrom = new Map(await requireChain(own, disk));
    // A machine that was restored goes on sharing what it never wrote with its template, as far as it can.
    const template =
      record.startedFrom === 'boot' || record.template === undefined || options.pageSharing === 'none'
        ? undefined
        : await templates.load(record.template);
    for (const [file, digest] of template?.digests ?? []) madeFrom.set(file, digest);
    const state = await open(memoryImage, 'r');
    try {
      await launch(
        at,
        {
          shape: record.shape,
          image: own,
          memory: template === undefined ? { kind: 'own' } : { kind: 'template' },
          incoming: true,
          disk,
          ...(template !== undefined && { memoryDescriptor: template.memory.fd }),
          stateDescriptor: state.fd,
        },
        madeFrom,
        'hold',
      );
    } finally {
      await state.close();
    }
  }

  async function freshDisk(at: HostLayout, found: HostRecord): Promise<HostRecord> {
    // Nor does an untouched disk fit another image than the one that is installed.
    const isUseless = found.diskIsUsed || found.image !== image.digest;
    const record = isUseless ? await newDisk(at, found) : found;
    const used = { ...record, diskIsUsed: true, startedFrom: undefined, held: false, hasRegistries: false };
    await writeHostRecord(at.record, used);
    return used;
  }

  async function start(at: HostLayout, found: HostRecord): Promise<HostRecord> {
    if (hasRun(found)) {
      await boot(at, found);
      return { ...found, startedFrom: 'boot', hasRegistries: false };
    }
    let record = await freshDisk(at, found);
    const template = record.template === undefined ? undefined : await templates.load(record.template);
    // A template that can't be used any more is of no use for a disk either.
    if (record.template !== undefined && template === undefined) {
      record = await freshDisk(at, record);
    }
    if (template !== undefined) await restore(at, record, template);
    else await boot(at, record);
    return { ...record, startedFrom: template === undefined ? 'boot' : 'template' };
  }

  return { newDisk, freshDisk, restore, start, load, endHalfLaunched };
}
