import { chmod, mkdir, mkdtemp, readdir, realpath, rm, symlink } from 'node:fs/promises';
import path from 'node:path';
import { type ImageSuite, imageSuites } from '../../src/core/hypervisor/images.ts';
import { ensureGuestImage } from '../../src/hypervisors/qemu/image/build-image.ts';
import type { GuestImage } from '../../src/hypervisors/qemu/image/guest-image.ts';
import type { QemuOptions } from '../../src/hypervisors/qemu/options.ts';

/**
 * Reused by later runs, each entry under the digest of its inputs: building the guest image takes minutes, and a template
 * takes a cold boot.
 */
export const cacheDirectory = '/var/cache/berth-test';
const recipeDirectory = path.join(import.meta.dirname, '..', '..', 'image');
/** Short, since paths of Unix sockets are limited, and accessible for the users that hosts run as. */
const stateRoot = '/var/tmp';

/** Options of a driver that has an image from the start. */
export type QemuTestOptions = QemuOptions & { readonly image: GuestImage };

/** The guest image of this checkout's recipe. If it is missing, builds it and prints the progress. */
export async function testImage(suite: ImageSuite = imageSuites[0]): Promise<GuestImage> {
  let last = '';
  return ensureGuestImage(
    { imagesDirectory: path.join(cacheDirectory, 'images'), recipeDirectory, suite },
    ({ step, percent }) => {
      const line = `guest image of ${suite}: ${step} ${Math.floor(percent / 5) * 5} %\n`;
      if (line !== last) process.stderr.write(line);
      last = line;
    },
    new AbortController().signal,
  );
}

/**
 * A state directory for one test file, with links to the shared cache.
 * @param templates folder in the cache for templates of another suite, which would replace those of the same plan.
 */
export async function makeStateDirectory(
  templates = 'templates',
): Promise<{ directory: string; remove: () => Promise<void> }> {
  const directory = await mkdtemp(path.join(stateRoot, 'berth-test-'));
  await chmod(directory, 0o755);
  for (const [name, folder] of Object.entries({ images: 'images', templates, disks: 'disks' })) {
    await mkdir(path.join(cacheDirectory, folder), { recursive: true, mode: 0o755 });
    await symlink(path.join(cacheDirectory, folder), path.join(directory, name));
  }
  return { directory, remove: () => rm(directory, { recursive: true, force: true }) };
}

/**
 * Gives a state directory its own folder of templates, with links to those of every suite: a driver removes templates that
 * nothing needs.
 */
export async function separateTemplates(stateDirectory: string): Promise<void> {
  const own = path.join(stateDirectory, 'templates');
  const shared = new Set([await realpath(own), path.join(cacheDirectory, 'templates')]);
  await rm(own);
  await mkdir(own);
  for (const folder of shared) {
    for (const name of await readdir(folder)) await symlink(path.join(folder, name), path.join(own, name));
  }
}
