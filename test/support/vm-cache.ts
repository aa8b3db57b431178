import { chmod, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { ensureGuestImage } from '../../src/hypervisors/qemu/image/build-image.ts';
import type { GuestImage } from '../../src/hypervisors/qemu/image/guest-image.ts';

/**
 * Kept from run to run, each thing under the digest of what it was made from: the guest image takes minutes to
 * build, and a template takes a cold boot.
 */
const cacheDirectory = '/var/cache/berth-test';
const kept = ['images', 'templates', 'disks'];
const recipeDirectory = path.join(import.meta.dirname, '..', '..', 'image');
/** Unix sockets in it need a short path, and hosts' users must be able to enter it. */
const stateRoot = '/var/tmp';

/** The guest image of this checkout's recipe; built where it is missing, which is said. */
export async function testImage(): Promise<GuestImage> {
  let last = '';
  return ensureGuestImage(
    { imagesDirectory: path.join(cacheDirectory, 'images'), recipeDirectory },
    ({ step, percent }) => {
      const line = `guest image: ${step} ${Math.floor(percent / 5) * 5} %\n`;
      if (line !== last) process.stderr.write(line);
      last = line;
    },
    new AbortController().signal,
  );
}

/** A state directory of its own for one test file, over the shared cache. */
export async function makeStateDirectory(): Promise<{ directory: string; remove: () => Promise<void> }> {
  const directory = await mkdtemp(path.join(stateRoot, 'berth-test-'));
  await chmod(directory, 0o755);
  for (const name of kept) {
    await mkdir(path.join(cacheDirectory, name), { recursive: true, mode: 0o755 });
    await symlink(path.join(cacheDirectory, name), path.join(directory, name));
  }
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) };
}
