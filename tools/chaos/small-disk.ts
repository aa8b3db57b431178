import { execFile } from 'node:child_process';
import { mkdir, open, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
/** It takes only the space that is written. */
const bytes = 12 * 1024 ** 3;
const smallestFile = 4096;

/** A file system for one folder, so that it can become full. */
export interface SmallDisk {
  /** Takes all space that is left. */
  fill(): Promise<void>;
  /** Gives it back. */
  free(): Promise<void>;
  /** The image of the file system, beside the folder, is left. */
  unmount(): Promise<void>;
}

/** Mounts a new file system at this folder. Needs root. @param directory an empty folder. */
export async function mountSmallDisk(directory: string): Promise<SmallDisk> {
  const image = `${directory}.ext4`;
  const filler = path.join(directory, 'filler');
  const file = await open(image, 'w', 0o600);
  await file.truncate(bytes);
  await file.close();
  try {
    // No blocks are reserved for root: Berth and its hosts run out of space at once.
    await run('mkfs.ext4', ['-q', '-F', '-m', '0', image]);
    await run('mount', ['-o', 'loop', image, directory]);
  } catch (error) {
    await rm(image, { force: true });
    throw error;
  }
  return {
    async fill() {
      await mkdir(filler);
      const { bavail, bsize } = await statfs(directory);
      let size = bavail * bsize;
      for (let number = 1; size >= smallestFile; number += 1) {
        await run('fallocate', ['-l', String(size), path.join(filler, String(number))]).catch(() => {
          size = Math.floor(size / 2);
        });
      }
    },
    free: () => rm(filler, { recursive: true, force: true }),
    async unmount() {
      await run('umount', [directory]);
    },
  };
}
