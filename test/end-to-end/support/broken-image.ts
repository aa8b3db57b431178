import { randomBytes } from 'node:crypto';
import { cp, mkdir, open, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import {
  fileDigest,
  type GuestImage,
  readImageRecord,
  writeImageRecord,
} from '../../../src/hypervisors/qemu/image/guest-image.ts';
import { imageVersion } from '../../../src/hypervisors/qemu/image/image-version.ts';

/**
 * Fills a folder of images with these, and with a newer copy of the first one, whose root file system does not match its root
 * hash: a guest that boots it panics.
 * @returns the copy's version.
 */
export async function installBrokenImage(images: string, installed: readonly GuestImage[]): Promise<string> {
  const [original] = installed;
  if (original === undefined) throw new Error('there is no image to break');
  await mkdir(images);
  for (const { directory, digest } of installed) await symlink(directory, path.join(images, digest));
  const digest = randomBytes(32).toString('hex');
  const directory = path.join(images, digest);
  await cp(original.directory, directory, { recursive: true });
  const rootfs = path.join(directory, 'rootfs');
  const file = await open(rootfs, 'r+');
  // The first byte is part of the file system's magic number.
  await file.write(Buffer.from([0]), 0, 1, 0);
  await file.close();
  const record = await readImageRecord(directory);
  await rm(path.join(directory, 'image.json'));
  await writeImageRecord(directory, {
    ...record,
    digest,
    builtAt: new Date().toISOString(),
    files: { ...record.files, rootfs: await fileDigest(rootfs) },
  });
  return imageVersion(digest);
}
