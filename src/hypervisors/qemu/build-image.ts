import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../core/hypervisor.ts';
import { runTool } from '../process.ts';
import { fileDigest, type GuestImage, type ImageRecord, readImage, writeImageRecord } from './guest-image.ts';

/** How far the build is. */
export interface BuildProgress {
  /** What is being done, in words for people. */
  readonly step: string;
  /** From 0 to 100. */
  readonly percent: number;
}

export interface ImageOptions {
  /** Where images are kept, each in a folder named by its digest. */
  readonly imagesDirectory: string;
  /** The recipe: the folder `image/` of the project. */
  readonly recipeDirectory: string;
}

/** The unpacked tree, its copy in the making and the result. In bytes. */
const roomNeeded = 4 * 1024 ** 3;
const buildTimeoutMs = 60 * 60 * 1000;

/**
 * The newest image that was built by this very recipe; undefined where there is none.
 * @throws HypervisorError where it is damaged: the message names the file and the remedy.
 */
export async function findGuestImage(options: ImageOptions): Promise<GuestImage | undefined> {
  const recipe = await recipeDigest(options.recipeDirectory);
  const folders = await readdir(options.imagesDirectory).catch(() => []);
  const images = await Promise.all(
    folders
      .filter((name) => /^[0-9a-f]{64}$/.test(name))
      .map((name) => readImage(path.join(options.imagesDirectory, name))),
  );
  return images
    .filter((image) => image.record.recipe === recipe)
    .sort((one, other) => other.record.builtAt.localeCompare(one.record.builtAt))[0]?.image;
}

/** The image of this recipe: the one that is there, or else a new one. Needs root and Debian's packages to build. */
export async function ensureGuestImage(
  options: ImageOptions,
  report: (progress: BuildProgress) => void,
  signal: AbortSignal,
): Promise<GuestImage> {
  return (await findGuestImage(options)) ?? (await buildGuestImage(options, report, signal));
}

/**
 * Builds the image anew, with the packages as Debian has them now. The result is named by the digest of the
 * recipe and all package versions: where nothing has changed, it is the image that was there before.
 * @throws HypervisorError with what the build printed; nothing is left behind then.
 */
export async function buildGuestImage(
  options: ImageOptions,
  report: (progress: BuildProgress) => void,
  signal: AbortSignal,
): Promise<GuestImage> {
  const { imagesDirectory, recipeDirectory } = options;
  await mkdir(imagesDirectory, { recursive: true, mode: 0o755 });
  await requireRoom(imagesDirectory);
  await removeAbandonedBuilds(imagesDirectory);
  const work = await mkdtemp(path.join(imagesDirectory, `build-${process.pid}-`));
  try {
    await runTool(path.join(recipeDirectory, 'build'), [work], {
      timeoutMs: buildTimeoutMs,
      signal,
      onLine: (line) => {
        const [, percent = '', step = ''] = /^progress (\d+) (.+)$/.exec(line) ?? [];
        if (step !== '') report({ step, percent: Number(percent) });
      },
    });
    return await publish(path.join(work, 'out'), options);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function publish(out: string, options: ImageOptions): Promise<GuestImage> {
  const packages = await readFile(path.join(out, 'packages'), 'utf8');
  const recipe = await recipeDigest(options.recipeDirectory);
  const digest = createHash('sha256').update(`${recipe}\n${packages}`).digest('hex');
  const verity = (await readFile(path.join(out, 'verity'), 'utf8')).trim();
  await rm(path.join(out, 'verity'));
  const record: ImageRecord = {
    digest,
    recipe,
    builtAt: new Date().toISOString(),
    verity,
    files: {
      vmlinuz: await fileDigest(path.join(out, 'vmlinuz')),
      initrd: await fileDigest(path.join(out, 'initrd')),
      rootfs: await fileDigest(path.join(out, 'rootfs')),
    },
  };
  await writeImageRecord(out, record);
  const target = path.join(options.imagesDirectory, digest);
  // The packages are as they were: the image in use stays as it is, and its templates with it.
  await rename(out, target).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  });
  return (await readImage(target)).image;
}

/** SHA-256 over the recipe's files: their paths, modes and contents. */
async function recipeDigest(directory: string): Promise<string> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .sort();
  const hash = createHash('sha256');
  for (const file of files) {
    hash.update(`${path.relative(directory, file)}\0${await fileDigest(file)}\0`);
  }
  return hash.digest('hex');
}

async function requireRoom(directory: string): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < roomNeeded) {
    throw new HypervisorError(
      `The guest image needs ${roomNeeded / 1024 ** 3} GiB to be built, and ${directory} has ${Math.floor((bavail * bsize) / 1024 ** 2)} MiB: make room, or set BERTH_STATE_DIR to another disk.`,
    );
  }
}

/** What a killed builder has left; the folder's name holds the builder's process id. */
async function removeAbandonedBuilds(imagesDirectory: string): Promise<void> {
  for (const name of await readdir(imagesDirectory)) {
    const pid = /^build-(\d+)-/.exec(name)?.[1];
    if (pid === undefined || isAlive(Number(pid))) continue;
    await rm(path.join(imagesDirectory, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
