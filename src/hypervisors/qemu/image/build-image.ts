import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { ImageSuite } from '../../../core/hypervisor/images.ts';
import type { Logger } from '../../../lib/logger.ts';
import { publishFolder } from '../../../lib/write-file-atomically.ts';
import { runTool } from '../../run-tool.ts';
import {
  fileDigest,
  type GuestImage,
  type ImageRecord,
  readImage,
  readImageRecord,
  writeImageRecord,
} from './guest-image.ts';

/** Progress of a build. */
export interface BuildProgress {
  /** The current step, for people. */
  readonly step: string;
  /** From 0 to 100. */
  readonly percent: number;
}

export interface ImageOptions {
  /** Folder of the images; each image has a subfolder named by its digest. */
  readonly imagesDirectory: string;
  /** The recipe: the folder `image/` of the project. */
  readonly recipeDirectory: string;
  readonly suite: ImageSuite;
}

/** Measured: at most 1.1 GiB for the unpacked tree, apt's downloads and the result; the rest is a margin. */
const neededBytes = 2 * 1024 ** 3;
const diskSpaceRemedy = `free ${inGib(neededBytes)}, or set BERTH_STATE_DIR to a folder on another disk.`;
const resolveTimeoutMs = 10 * 60 * 1000;
const buildTimeoutMs = 60 * 60 * 1000;

/**
 * The newest image that was built from exactly this recipe; undefined if there is none.
 * @throws HypervisorError that names the file and the remedy if the image is damaged.
 */
export async function findGuestImage(options: ImageOptions): Promise<GuestImage | undefined> {
  const newest = await newestImage(await imagesIn(options.imagesDirectory), options);
  return newest && (await readImage(newest.folder));
}

/**
 * The image that is installed: the newest of this recipe, or else of a former one. A damaged one is logged and passed over:
 * {@link ensureGuestImage} says what to do about it.
 */
export async function findInstalledImage(
  options: ImageOptions,
  logger: Logger,
): Promise<GuestImage | undefined> {
  const readable = <T>(reading: Promise<T>): Promise<T | undefined> =>
    reading.catch((error: unknown) => {
      logger.error({ err: error }, 'An installed guest image can not be used');
      return undefined;
    });
  const images = (await readable(imagesIn(options.imagesDirectory))) ?? [];
  const ofRecipe = await newestImage(images, options);
  for (const { folder } of ofRecipe === undefined ? images : [ofRecipe, ...images]) {
    const image = await readable(readImage(folder));
    if (image !== undefined) return image;
  }
  return undefined;
}

/** An image's folder and record. */
interface ImageFolder {
  readonly folder: string;
  readonly record: ImageRecord;
}

/**
 * The images in a folder, newest first, without checking their files.
 * @throws HypervisorError if a record can't be read.
 */
export async function imagesIn(imagesDirectory: string): Promise<readonly ImageFolder[]> {
  const names = await readdir(imagesDirectory).catch(() => []);
  const folders = names
    .filter((name) => /^[0-9a-f]{64}$/.test(name))
    .map((name) => path.join(imagesDirectory, name));
  const images = await Promise.all(
    folders.map(async (folder) => ({ folder, record: await readImageRecord(folder) })),
  );
  return images.sort((one, other) => other.record.builtAt.localeCompare(one.record.builtAt));
}

/** The newest of these images that was built from exactly this recipe and suite. */
export async function newestImage(
  images: readonly ImageFolder[],
  options: ImageOptions,
): Promise<ImageFolder | undefined> {
  const recipe = await recipeDigest(options);
  return images.find(({ record }) => record.recipe === recipe);
}

/**
 * Returns the installed image of this recipe, which needs neither network nor root, or builds one. Newer Debian packages
 * come in by {@link buildGuestImage} only, because every new image needs new templates.
 */
export async function ensureGuestImage(
  options: ImageOptions,
  report: (progress: BuildProgress) => void,
  signal: AbortSignal,
): Promise<GuestImage> {
  return (await findGuestImage(options)) ?? (await buildGuestImage(options, report, signal));
}

/**
 * Builds the image of this recipe with Debian's current packages, or returns the installed one if nothing has changed.
 * Needs root and Debian's tools (setup/debian-packages.txt).
 * @throws HypervisorError with the build's output; nothing is left behind.
 */
export async function buildGuestImage(
  options: ImageOptions,
  report: (progress: BuildProgress) => void,
  signal: AbortSignal,
): Promise<GuestImage> {
  const { imagesDirectory } = options;
  if (process.getuid?.() !== 0) throw new HypervisorError('Building the guest image needs root.');
  await mkdir(imagesDirectory, { recursive: true, mode: 0o755 });
  await removeAbandonedBuilds(imagesDirectory);
  await requireDiskSpace(imagesDirectory);
  const work = await mkdtemp(path.join(imagesDirectory, `build-${process.pid}-`));
  try {
    const recipe = await recipeDigest(options);
    report({ step: 'Looking up the newest Debian packages', percent: 0 });
    const versions = path.join(work, 'versions');
    await mkdir(versions);
    const packages = await runRecipe(options, 'packages', versions, { timeoutMs: resolveTimeoutMs, signal });
    const digest = createHash('sha256').update(`${recipe}\n${packages}`).digest('hex');
    const target = path.join(imagesDirectory, digest);
    if ((await readdir(imagesDirectory)).includes(digest)) return await readImage(target);

    const build = path.join(work, 'image');
    await mkdir(build);
    await runRecipe(options, 'image', build, {
      timeoutMs: buildTimeoutMs,
      signal,
      onLine: (line) => {
        const [, percent = '', step = ''] = /^progress (\d+) (.+)$/.exec(line) ?? [];
        if (step !== '') report({ step, percent: Number(percent) });
      },
    });
    const out = path.join(build, 'out');
    requireExpectedPackages(packages, await readFile(path.join(out, 'packages'), 'utf8'));
    await writeRecord(out, digest, recipe, options.suite);
    await publishImage(out, target);
    return await readImage(target);
  } catch (cause) {
    if (!(cause instanceof Error && /no space left on device/i.test(cause.message))) throw cause;
    throw new HypervisorError(
      `The disk of ${imagesDirectory} became full while the guest image was built: ${diskSpaceRemedy}`,
      { cause },
    );
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Runs the recipe in new mount and process namespaces, so that everything that it mounts or starts ends with it, even
 * if it is killed.
 */
function runRecipe(
  options: ImageOptions,
  command: 'packages' | 'image',
  work: string,
  limits: Parameters<typeof runTool>[2],
): Promise<string> {
  const namespace = ['--pid', '--fork', '--mount-proc'];
  const recipe = path.join(options.recipeDirectory, 'build');
  return runTool('unshare', [...namespace, 'bash', recipe, command, options.suite, work], limits);
}

/** The digest in the image's name covers the expected packages, so no others may be in it. */
function requireExpectedPackages(expected: string, actual: string): void {
  const allowed = new Set(expected.split('\n'));
  const others = actual.split('\n').filter((line) => !allowed.has(line));
  if (others.length > 0) {
    throw new HypervisorError(
      `Debian's archive changed while the guest image was built (now ${others.slice(0, 5).join(', ')}): start the build again.`,
    );
  }
}

async function writeRecord(out: string, digest: string, recipe: string, suite: ImageSuite): Promise<void> {
  const verityFile = path.join(out, 'verity');
  const record: ImageRecord = {
    digest,
    recipe,
    suite,
    builtAt: new Date().toISOString(),
    turnsOnCpus: true,
    verity: (await readFile(verityFile, 'utf8')).trim(),
    files: {
      vmlinuz: await fileDigest(path.join(out, 'vmlinuz')),
      initrd: await fileDigest(path.join(out, 'initrd')),
      rootfs: await fileDigest(path.join(out, 'rootfs')),
    },
  };
  await rm(verityFile);
  await writeImageRecord(out, record);
}

/** If another builder was faster, its image stays: it is the same, and may be in use. */
async function publishImage(out: string, target: string): Promise<void> {
  try {
    await publishFolder(out, target);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  }
}

/** SHA-256 over the suite, and the paths and contents of the recipe's files. */
async function recipeDigest({ recipeDirectory, suite }: ImageOptions): Promise<string> {
  const entries = await readdir(recipeDirectory, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .sort();
  const hash = createHash('sha256').update(`${suite}\0`);
  for (const file of files) {
    hash.update(`${path.relative(recipeDirectory, file)}\0${await fileDigest(file)}\0`);
  }
  return hash.digest('hex');
}

async function requireDiskSpace(directory: string): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < neededBytes) {
    throw new HypervisorError(
      `The disk of ${directory} has ${inGib(bavail * bsize)} left, which is too little to build the guest image: ${diskSpaceRemedy}`,
    );
  }
}

function inGib(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}

/** Removes what killed builders have left; a build folder's name contains the builder's process id. */
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
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
