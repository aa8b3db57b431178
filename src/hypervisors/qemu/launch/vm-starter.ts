import { type FileHandle, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { exists } from '../../../lib/exists.ts';
import { writeFileAtomically } from '../../../lib/write-file-atomically.ts';
import type { DiskChain } from './arguments.ts';
import type { Cgroups } from './cgroups.ts';
import { type Digests, requireDigests } from '../integrity/digests.ts';
import { baseDiskDigest, createOverlay, ensureBaseDisk } from '../disk/disks.ts';
import type { CurrentImage } from '../image/current-image.ts';
import { growDisk } from '../disk/grow-disk.ts';
import { type GuestImage, readImage, readImageRecord } from '../image/guest-image.ts';
import { boundsOf, type HostRecord, writeHostRecord } from '../host-record.ts';
import type { LaunchSpec } from './launch-spec.ts';
import { largestFile } from './sizes.ts';
import { bootedSize, restoredSize } from './started-size.ts';
import type { Vms } from './vms.ts';
import type { QemuOptions } from '../options.ts';
import type { HostLayout } from '../layout.ts';
import { openOwnCopy } from '../memory/sealed-memory.ts';
import { templateShape, templateStart } from '../template/template-shape.ts';
import type { SavedMemory } from '../memory/suspended-memory.ts';
import type { LoadedTemplate, TemplateStore } from '../template/template-store.ts';

/**
 * Starts a host's VM: from its template, from its disk, or from the memory that it was suspended to. Every file that a
 * VM is made from is checked against its digest first.
 */
export interface VmStarter {
  /** Gives the host an unused disk: an overlay of the template's disk if there is a template, else of an empty one. */
  newDisk(layout: HostLayout, record: HostRecord): Promise<HostRecord>;
  /** For a VM that has never run: discards what a killed attempt has written to its disk. */
  freshDisk(layout: HostLayout, found: HostRecord): Promise<HostRecord>;
  /** Needs a fresh disk. @throws HypervisorError if the restore fails; the next attempt boots cold. */
  restore(layout: HostLayout, record: HostRecord, template: LoadedTemplate): Promise<void>;
  /** Boots a guest that has run before; restores any other, or boots it if there is no template. */
  start(layout: HostLayout, found: HostRecord): Promise<HostRecord>;
  /** Loads a suspended VM's memory into a new QEMU process and leaves it paused. */
  load(layout: HostLayout, record: HostRecord, memory: SavedMemory): Promise<void>;
  /** Kills a VM whose launch was interrupted: it has no manifest. Any other VM is left alone. */
  killUnfinishedLaunch(layout: HostLayout): Promise<void>;
}

/** Exists from before a VM is launched until its manifest is written. */
const launchMarker = (layout: HostLayout) => path.join(layout.directory, 'launching');

/** Whether the guest has ever run on its disk. */
export const hasRun = ({ startedFrom, parked }: HostRecord) => startedFrom !== undefined && !parked;

export function createVmStarter(
  options: Pick<
    QemuOptions,
    'accelerator' | 'stateDirectory' | 'libexecDirectory' | 'pageSharing' | 'diskReserveMib' | 'room'
  >,
  deps: { image: CurrentImage; cgroups: Cgroups; vms: Vms; templates: TemplateStore; digests: Digests },
): VmStarter {
  const { stateDirectory } = options;
  const { image, cgroups, vms, templates, digests } = deps;

  async function diskChain(layout: HostLayout, record: HostRecord): Promise<DiskChain> {
    const base = await ensureBaseDisk(stateDirectory, record.baseDiskGib ?? record.shape.diskGib);
    const template =
      record.template === undefined
        ? undefined
        : path.join(templates.directory(record.template), 'disk.qcow2');
    return { own: layout.disk, template, base };
  }

  async function newDisk(layout: HostLayout, record: HostRecord): Promise<HostRecord> {
    const { digest } = image.require();
    // Both at once: the template is of this image, even if another one becomes current meanwhile.
    const key = templates.keyFor(record);
    const template = key === undefined ? undefined : await templates.load(key);
    const baseDiskGib = template === undefined ? record.shape.diskGib : templateShape.diskGib;
    const base = await ensureBaseDisk(stateDirectory, baseDiskGib);
    const fresh = { ...record, image: digest, template: template?.key, baseDiskGib, diskIsUsed: false };
    // Recorded before the disk is made, so that a template in use is never removed.
    await writeHostRecord(layout.record, fresh);
    await createOverlay(
      layout.disk,
      template === undefined ? { file: base, format: 'raw' } : { file: template.disk, format: 'qcow2' },
      record.shape.diskGib,
      layout.uid,
      options.diskReserveMib,
    );
    return fresh;
  }

  /** Either launches a VM that matches its spec and has a manifest, or leaves none. */
  async function launch(
    layout: HostLayout,
    spec: LaunchSpec,
    sources: ReadonlyMap<string, string>,
    incoming?: 'run' | 'pause',
    template?: Parameters<Vms['load']>[2],
  ): Promise<void> {
    // It is for a killed worker: a power cut ends the VM too.
    await writeFileAtomically(launchMarker(layout), '', { durable: false });
    try {
      await vms.launch(layout, spec);
      if (incoming !== undefined) await vms.load(layout, incoming, template);
      await vms.writeManifest(layout, spec, sources);
    } catch (error) {
      await killUnfinishedLaunch(layout);
      throw error;
    }
    await rm(launchMarker(layout));
  }

  async function killUnfinishedLaunch(layout: HostLayout): Promise<void> {
    if (!(await exists(launchMarker(layout)))) return;
    await cgroups.kill(layout.id);
    await rm(launchMarker(layout));
  }

  async function restore(layout: HostLayout, record: HostRecord, template: LoadedTemplate): Promise<void> {
    const [image, disk] = [await imageOf(record), await diskChain(layout, record)];
    const sources = new Map([...(await verifySourceFiles(image, disk)), ...template.digests]);
    const own = options.pageSharing === 'none' ? await ownMemory(layout, record, template) : undefined;
    let state: FileHandle | undefined;
    try {
      state = await open(template.deviceState, 'r');
      await launch(
        layout,
        {
          shape: record.shape,
          bounds: { start: templateStart, room: options.room },
          image,
          memory: { kind: 'template' },
          incoming: true,
          disk,
          memoryDescriptor: (own ?? template.memory).fd,
          stateDescriptor: state.fd,
        },
        sources,
        'run',
        { kernelSecrets: template.kernelSecrets, start: templateStart, shape: record.shape },
      );
      templates.restored(template.key);
    } catch (error) {
      // The next attempt boots cold: slower, but independent of the template.
      await templates.restoreFailed(template.key, error);
      throw error;
    } finally {
      await own?.close();
      await state?.close();
    }
  }

  async function imageOf(record: HostRecord): Promise<GuestImage> {
    const current = image.find();
    return current?.digest === record.image
      ? current
      : readImage(path.join(stateDirectory, 'images', record.image));
  }

  /** A copy of the sealed, already verified memory, charged to the host's control group. */
  async function ownMemory(
    layout: HostLayout,
    record: HostRecord,
    { memory }: LoadedTemplate,
  ): Promise<FileHandle> {
    const folders = await cgroups.make(layout.id, record.shape);
    return openOwnCopy(options.libexecDirectory, `/proc/${process.pid}/fd/${memory.fd}`, folders);
  }

  async function boot(layout: HostLayout, record: HostRecord): Promise<void> {
    const own = await imageOf(record);
    const disk = await diskChain(layout, record);
    const sources = new Map(await verifySourceFiles(own, disk));
    if (record.template !== undefined && disk.template !== undefined) {
      const expected = await templates.diskDigest(record.template);
      await requireDigests(digests, [[disk.template, expected]], "The template's disk");
      sources.set(disk.template, expected);
    }
    await launch(
      layout,
      {
        shape: record.shape,
        bounds: boundsOf(record),
        image: own,
        memory: { kind: 'own' },
        incoming: false,
        disk,
      },
      sources,
    );
  }

  /**
   * Checks the files that every VM is made from, and returns their digests by path.
   * @throws HypervisorError that names the file that has changed.
   */
  async function verifySourceFiles(own: GuestImage, disk: DiskChain): Promise<ReadonlyMap<string, string>> {
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

  async function load(layout: HostLayout, record: HostRecord, memory: SavedMemory): Promise<void> {
    const image = await imageOf(record);
    const disk = await diskChain(layout, record);
    const sources = new Map(await verifySourceFiles(image, disk));
    const template = memory.template === undefined ? undefined : await templates.require(memory.template);
    for (const [file, digest] of template?.digests ?? []) sources.set(file, digest);
    const own =
      template !== undefined && options.pageSharing === 'none'
        ? await ownMemory(layout, record, template)
        : undefined;
    let state: FileHandle | undefined;
    try {
      state = await open(memory.image, 'r');
      await launch(
        layout,
        {
          shape: record.shape,
          bounds: boundsOf(record),
          image,
          memory: template === undefined ? { kind: 'own' } : { kind: 'template' },
          incoming: true,
          disk,
          ...(template !== undefined && { memoryDescriptor: (own ?? template.memory).fd }),
          stateDescriptor: state.fd,
        },
        sources,
        'pause',
      );
    } finally {
      await own?.close();
      await state?.close();
    }
  }

  async function freshDisk(layout: HostLayout, found: HostRecord): Promise<HostRecord> {
    // An unused disk does not fit an image other than the current one either.
    const isUnusable = found.diskIsUsed || found.image !== image.require().digest;
    const record = isUnusable ? await newDisk(layout, found) : found;
    const used = { ...record, diskIsUsed: true, startedFrom: undefined, parked: false, hasRegistries: false };
    await writeHostRecord(layout.record, used);
    return used;
  }

  const sizeAtBoot = async (record: HostRecord) => bootedSize(record.shape, options, await imageOf(record));

  async function start(layout: HostLayout, found: HostRecord): Promise<HostRecord> {
    if (hasRun(found)) {
      if (found.growing !== undefined) {
        await growDisk(layout.disk, found.shape.diskGib, layout.uid, largestFile(found.shape));
      }
      // Recorded first: it is known what runs, whatever happens meanwhile.
      const record = { ...found, ...(await sizeAtBoot(found)) };
      await writeHostRecord(layout.record, record);
      await boot(layout, record);
      return { ...record, startedFrom: 'boot', hasRegistries: false, power: 'running' };
    }
    const fresh = await freshDisk(layout, found);
    let record = { ...fresh, ...(await sizeAtBoot(fresh)) };
    const template = record.template === undefined ? undefined : await templates.load(record.template);
    // If the template can't be loaded, a disk on top of it is useless too.
    if (record.template !== undefined && template === undefined) {
      record = { ...record, ...(await freshDisk(layout, record)) };
    }
    if (template !== undefined) await restore(layout, record, template);
    else await boot(layout, record);
    return {
      ...record,
      ...(template !== undefined && restoredSize(record.shape, options.room)),
      startedFrom: template === undefined ? 'boot' : 'template',
    };
  }

  return { newDisk, freshDisk, restore, start, load, killUnfinishedLaunch };
}
