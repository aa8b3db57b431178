import { chmod, chown, mkdir, open, readFile, rm, statfs, truncate } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { leaseMs } from '../../../core/lease-duration.ts';
import { exists } from '../../../lib/exists.ts';
import { publishFile, writeFileAtomically } from '../../../lib/write-file-atomically.ts';
import { takeFileLock } from '../../file-lock.ts';
import { runTool } from '../../run-tool.ts';
import { sparseDigest } from '../integrity/digests.ts';

/** Disk space that is left free on the node if the options name none, in MiB. */
export const defaultReserveMib = 2048;

/** An empty, sparse, read-only ext4 image of this size, from which every disk of that size starts; made once. */
export async function ensureBaseDisk(stateDirectory: string, diskGib: number): Promise<string> {
  const directory = path.join(stateDirectory, 'disks');
  const file = path.join(directory, `empty-${diskGib}g.ext4`);
  if (await exists(file)) return file;
  await mkdir(directory, { recursive: true, mode: 0o755 });
  // Another worker may need it at the same time; it must not change after the first use.
  const lock = await takeFileLock(path.join(directory, 'lock'), { patienceMs: leaseMs, logger: undefined });
  try {
    if (!(await exists(file))) await makeBaseDisk(file, diskGib);
  } finally {
    await lock.release();
  }
  return file;
}

async function makeBaseDisk(file: string, diskGib: number): Promise<void> {
  // Remove what a killed attempt has left.
  const attempt = `${file}.new`;
  await rm(attempt, { force: true });
  await (await open(attempt, 'w', 0o444)).close();
  try {
    await truncate(attempt, diskGib * 1024 ** 3);
    // The kernel never initialises the inode tables (noinit_itable in the initrd): that would fill every overlay with
    // zeros.
    await runTool('mkfs.ext4', ['-q', '-F', '-m', '0', '-E', 'lazy_itable_init=1,nodiscard', attempt]);
    await chmod(attempt, 0o444);
    await writeFileAtomically(digestFile(file), await sparseDigest(attempt), { mode: 0o644 });
    await publishFile(attempt, file);
  } finally {
    await rm(attempt, { force: true });
  }
}

const digestFile = (file: string) => `${file}.sha256`;

/** The recorded digest of an empty disk; computed now if an older version of Berth has not recorded it. */
export async function baseDiskDigest(file: string): Promise<string> {
  try {
    return await readFile(digestFile(file), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const digest = await sparseDigest(file);
    await writeFileAtomically(digestFile(file), digest, { mode: 0o644 });
    return digest;
  }
}

/** Makes an empty overlay over `backing`, readable by this user only; replaces an existing one. */
export async function createOverlay(
  file: string,
  backing: { file: string; format: 'raw' | 'qcow2' },
  diskGib: number,
  uid: number,
  reserveMib = defaultReserveMib,
): Promise<void> {
  await requireDiskSpace(path.dirname(file), { reserveMib });
  const attempt = `${file}.new`;
  await rm(attempt, { force: true });
  await runTool('qemu-img', [
    'create',
    '-q',
    '-u',
    '-f',
    'qcow2',
    '-o',
    'cluster_size=64k,lazy_refcounts=on',
    '-b',
    backing.file,
    '-F',
    backing.format,
    attempt,
    `${diskGib}G`,
  ]);
  await chmod(attempt, 0o600);
  await chown(attempt, uid, uid);
  await publishFile(attempt, file);
}

/** Frees all blocks of a disk before removing it, so that a process that has it open can't read it either. */
export async function wipeDisk(file: string): Promise<void> {
  try {
    await truncate(file, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  await rm(file, { force: true });
}

/**
 * @param need.reserveMib always left free: a full disk affects all hosts.
 * @param need.bytes about to be written, if known.
 * @throws HypervisorError if writing them would use the reserve.
 */
export async function requireDiskSpace(
  directory: string,
  { reserveMib = defaultReserveMib, bytes = 0 }: { reserveMib?: number | undefined; bytes?: number },
): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < reserveMib * 1024 ** 2 + bytes) {
    const needed = bytes === 0 ? '' : `, ${Math.ceil(bytes / 1024 ** 2)} MiB are needed`;
    throw new HypervisorError(
      `The disk of ${directory} is full: ${Math.floor((bavail * bsize) / 1024 ** 2)} MiB are free${needed}, and ${reserveMib} MiB are reserved for the node`,
    );
  }
}
