import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { ImageSuite } from '../../../core/hypervisor/images.ts';
import { writeFileAtomically } from '../../../lib/write-file-atomically.ts';
import { imageVersion } from './image-version.ts';

/** The guest image that hosts boot, named by a digest of its recipe and package versions. */
export interface GuestImage {
  /** SHA-256, lower-case hexadecimal, over the recipe's files and the versions of all packages. */
  readonly digest: string;
  /** Folder that contains the files below and `image.json`. */
  readonly directory: string;
  readonly kernel: string;
  readonly initrd: string;
  /** squashfs with its dm-verity hash tree appended. */
  readonly rootfs: string;
  /** Kernel command line; it contains the root hash, so that only the built root file system boots. */
  readonly commandLine: string;
  /** Whether its agent turns on CPUs that were off at boot. */
  readonly turnsOnCpus: boolean;
  /** Size of the three files together, in bytes. */
  readonly bytes: number;
}

/** `image.json`: the image's sources and the digests of its files. */
export interface ImageRecord {
  readonly digest: string;
  /** SHA-256 over the suite and the recipe's files. */
  readonly recipe: string;
  /** Undefined in images of former versions, which consist of bookworm. */
  readonly suite?: ImageSuite;
  /** ISO 8601. */
  readonly builtAt: string;
  /** Undefined in images of former versions, whose agent does not turn on CPUs. */
  readonly turnsOnCpus?: true;
  /** ROOT_HASH:SALT:BLOCKS, as the initrd reads it. */
  readonly verity: string;
  /** SHA-256 of each file. */
  readonly files: { readonly vmlinuz: string; readonly initrd: string; readonly rootfs: string };
}

const recordName = 'image.json';

export async function writeImageRecord(directory: string, record: ImageRecord): Promise<void> {
  const text = `${JSON.stringify(record, undefined, 2)}\n`;
  await writeFileAtomically(path.join(directory, recordName), text, { mode: 0o644 });
}

/**
 * Reads an image's record.
 * @throws HypervisorError that names the folder and the remedy if it is missing or unreadable.
 */
export async function readImageRecord(directory: string): Promise<ImageRecord> {
  try {
    return JSON.parse(await readFile(path.join(directory, recordName), 'utf8')) as ImageRecord;
  } catch (cause) {
    throw new HypervisorError(
      `The guest image has no readable ${path.join(directory, recordName)}. ${remedyFor(directory)}`,
      { cause },
    );
  }
}

/**
 * Reads an image and verifies the digests of its files (takes about 0.25 s).
 * @throws HypervisorError that names a missing or changed file and the remedy.
 */
export async function readImage(directory: string): Promise<GuestImage> {
  const record = await readImageRecord(directory);
  let bytes = 0;
  for (const [name, digest] of Object.entries<string>(record.files)) {
    const file = path.join(directory, name);
    const actual = await fileDigest(file).catch((cause: unknown) => {
      throw new HypervisorError(`The guest image lacks ${file}. ${remedyFor(directory)}`, { cause });
    });
    if (actual !== digest) {
      throw new HypervisorError(
        `The guest image is damaged: ${file} has the digest ${actual}, not ${digest}. ${remedyFor(directory)}`,
      );
    }
    bytes += (await stat(file)).size;
  }
  return {
    digest: record.digest,
    directory,
    kernel: path.join(directory, 'vmlinuz'),
    initrd: path.join(directory, 'initrd'),
    rootfs: path.join(directory, 'rootfs'),
    commandLine: [
      'quiet',
      // No console, so that a flood of messages cannot fill a disk. To watch a boot by hand: QEMU with -serial stdio, and
      // console=ttyS0 loglevel=6 systemd.log_target=console appended here.
      'console=null',
      // With QEMU's -no-reboot a panic ends the VM; a changed image causes one.
      'panic=1',
      'net.ifnames=0',
      // Added memory is used at once.
      'memhp_default_state=online',
      // Without it, a second CPU costs a guest with one some 15 s of emulation: the kernel's code is patched then.
      'noreplace-smp',
      'systemd.unified_cgroup_hierarchy=1',
      `berth.verity=${record.verity}`,
      // Readable inside a container in /proc/cmdline.
      `berth.image=${imageVersion(record.digest)}`,
    ].join(' '),
    turnsOnCpus: record.turnsOnCpus === true,
    bytes,
  };
}

function remedyFor(directory: string): string {
  return `Remove ${directory}: Berth then builds the image again.`;
}

/** SHA-256 of a file, lower-case hexadecimal. */
export async function fileDigest(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1024 * 1024 }))
    hash.update(chunk as Buffer);
  return hash.digest('hex');
}
