import { copyFile, mkdir, open, stat } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Hypervisor } from '../../src/core/hypervisor/hypervisor.ts';
import {
  fileDigest,
  type GuestImage,
  readImage,
  readImageRecord,
  writeImageRecord,
} from '../../src/hypervisors/qemu/image/guest-image.ts';
import { layoutOf } from '../../src/hypervisors/qemu/layout.ts';
import { createQemuHypervisor } from '../../src/hypervisors/qemu/qemu.ts';
import { eventually } from '../support/eventually.ts';
import { makeHosts, type TestHosts } from './support/hosts.ts';

/** The panic comes after a few seconds, on a busy node later. */
const bootMs = 300_000;

/**
 * dm-verity protects the root file system even if the digests of the image's files are not checked, or were changed too.
 *
 * Fails with an initrd that mounts the disk directly: the changed image booted. That nothing which a tenant writes shadows the
 * verified root after a boot: test/hypervisors/qemu/update.vm.test.ts.
 */
describe('verified root', { timeout: 3_600_000 }, () => {
  let hosts: TestHosts;
  beforeAll(async () => {
    hosts = await makeHosts();
  }, 1_200_000);
  afterAll(() => hosts.close(), 300_000);

  /** A copy of the image with a matching record, so its digests are right. */
  async function imageWith(
    name: string,
    change: { rootfs?: (file: string) => Promise<void>; verity?: (verity: string) => string },
  ): Promise<GuestImage> {
    const { image } = hosts.options;
    const directory = path.join(hosts.options.stateDirectory, `image-${name}`);
    await mkdir(directory);
    for (const file of ['vmlinuz', 'initrd', 'rootfs']) {
      await copyFile(path.join(image.directory, file), path.join(directory, file));
    }
    await change.rootfs?.(path.join(directory, 'rootfs'));
    const record = await readImageRecord(image.directory);
    const rootfs = await fileDigest(path.join(directory, 'rootfs'));
    await writeImageRecord(directory, {
      ...record,
      verity: change.verity?.(record.verity) ?? record.verity,
      files: { ...record.files, rootfs },
    });
    return { ...(await readImage(directory)), digest: image.digest.replace(/.{8}$/, '0'.repeat(8)) };
  }

  /** Boots it cold, with its network open: a state directory without another current image or a template. */
  async function boot(image: GuestImage) {
    const stateDirectory = path.join(hosts.options.stateDirectory, `state-${path.basename(image.directory)}`);
    await mkdir(stateDirectory);
    const options = { ...hosts.options, image, stateDirectory };
    const driver: Hypervisor = await createQemuHypervisor(options);
    const spec = hosts.newSpec();
    await driver.prepare(spec);
    const { disk } = layoutOf(options, spec.hostId, spec.slot);
    const untouched = (await stat(disk)).size;
    await driver.start(spec);
    expect(await driver.startedFrom(spec.hostId)).toBe('boot');
    await driver.connect(spec);
    return {
      spec,
      lives: async () => (await driver.memoryUsage(spec.hostId)) !== undefined,
      answers: () => driver.engineAnswers(spec).catch(() => false),
      /** The initrd mounts the data disk after the root file system. */
      hasMountedDisks: async () => (await stat(disk)).size > untouched,
      async end() {
        await driver.destroy(spec.hostId);
        await driver.close();
      },
    };
  }

  it('verified root: one changed bit or another root hash ends the VM; an unchanged copy boots', async () => {
    const vms: Awaited<ReturnType<typeof boot>>[] = [];
    const bootNext = async (image: GuestImage) => {
      const vm = await boot(image);
      vms.push(vm);
      return vm;
    };
    try {
      const bit = await bootNext(await imageWith('bit', { rootfs: alterTime }));
      const hash = await bootNext(
        await imageWith('hash', {
          verity: (verity) => verity.replace(/^./, (first) => (first === '0' ? '1' : '0')),
        }),
      );
      const same = await bootNext(await imageWith('same', {}));
      for (const altered of [bit, hash]) {
        await eventually(
          'the VM has ended',
          async () => {
            expect(await altered.answers()).toBe(false);
            expect(await altered.hasMountedDisks()).toBe(false);
            return !(await altered.lives());
          },
          { deadlineMs: bootMs, everyMs: 200 },
        );
      }
      await eventually('the unchanged copy has mounted its disks', () => same.hasMountedDisks(), {
        deadlineMs: bootMs,
      });
      expect(await same.lives()).toBe(true);
      expect([await bit.hasMountedDisks(), await hash.hasMountedDisks()]).toEqual([false, false]);
    } finally {
      for (const vm of vms) await vm.end();
    }
  });
});

/** Creation time of the file system (squashfs superblock, bytes 8 to 11); nothing else depends on it. */
async function alterTime(file: string): Promise<void> {
  const handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, 8);
  byte.writeUInt8(byte.readUInt8() ^ 1);
  await handle.write(byte, 0, 1, 8);
  await handle.close();
}
