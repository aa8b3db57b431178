import {
  chmod,
  chown,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  statfs,
  truncate,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { leaseMs } from '../../../core/lease.ts';
import { exists } from '../../../lib/exists.ts';
import { takeFileLock } from '../../file-lock.ts';
import { runTool } from '../../run-tool.ts';
import { sparseDigest } from '../integrity/digests.ts';

/** The machine keeps so much free: a full disk hurts everybody. In bytes. */
const reserve = 2 * 1024 ** 3;

/**
 * An empty ext4 of this size, which every disk of the size begins from; made once. It is sparse, and nobody
 * writes to it.
 */
export async function ensureBaseDisk(stateDirectory: string, diskGib: number): Promise<string> {
  const directory = path.join(stateDirectory, 'disks');
  const file = path.join(directory, `empty-${diskGib}g.ext4`);
  if (await exists(file)) return file;
  await mkdir(directory, { recursive: true, mode: 0o755 });
  // Others want it at the same moment: it must not change under the first of them.
  const lock = await takeFileLock(path.join(directory, 'lock'), { patienceMs: leaseMs, logger: undefined });
  try {
    if (!(await exists(file))) await makeBaseDisk(file, diskGib);
  } finally {
    await lock.release();
  }
  return file;
}

async function makeBaseDisk(file: string, diskGib: number): Promise<void> {
  // What a killed attempt has left is removed.
  const attempt = `${file}.new`;
  await rm(attempt, { force: true });
  await (await open(attempt, 'w', 0o444)).close();
  try {
    await truncate(attempt, diskGib * 1024 ** 3);
    // The kernel's own initialisation of inode tables is put off for ever (noinit_itable in the initrd): it would
    // fill every overlay with zeros.
    await runTool('mkfs.ext4', ['-q', '-F', '-m', '0', '-E', 'lazy_itable_init=1,nodiscard', attempt]);
    await chmod(attempt, 0o444);
    await writeFile(digestFile(file), await sparseDigest(attempt));
    await rename(attempt, file);
  } finally {
    await rm(attempt, { force: true });
  }
}

const digestFile = (file: string) => `${file}.sha256`;

/** The digest that an empty disk was made with. Where a disk of an older Berth has none, it is taken now. */
export async function baseDiskDigest(file: string): Promise<string> {
  try {
    return await readFile(digestFile(file), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const digest = await sparseDigest(file);
    await writeFile(digestFile(file), digest);
    return digest;
  }
}

/** Makes an empty overlay over `backing`, for this user alone; one that is there is replaced. */
export async function createOverlay(
  file: string,
  backing: { file: string; format: 'raw' | 'qcow2' },
  diskGib: number,
  uid: number,
): Promise<void> {
  await requireDiskSpace(path.dirname(file));
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
  await rename(attempt, file);
}

/** Gives back every block of a disk before its name goes, so that nothing of it can be read again. */
export async function wipeDisk(file: string): Promise<void> {
  try {
    await truncate(file, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  await rm(file, { force: true });
}

/**
 * @param bytes what is about to be written there, as far as that is known.
 * @throws HypervisorError where the disk that holds the folder is too full for it, but for what is kept for the machine.
 */
export async function requireDiskSpace(directory: string, bytes = 0): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize < reserve + bytes) {
    const wanted = bytes === 0 ? '' : `, ${Math.ceil(bytes / 1024 ** 2)} MiB are wanted`;
    throw new HypervisorError(
      `The disk of ${directory} is full: ${Math.floor((bavail * bsize) / 1024 ** 2)} MiB are free${wanted}, and ${reserve / 1024 ** 2} MiB are kept for the machine`,
    );
  }
}
