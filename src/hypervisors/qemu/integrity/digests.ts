import { createHash } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { runTool } from '../../run-tool.ts';

/** Reading a large template takes seconds; a busy machine, many of them. */
const timeoutMs = 10 * 60 * 1000;

/** Digests of files that are not to change. */
export interface Digests {
  /**
   * SHA-256 of a file, lower-case hexadecimal; `missing` where it is not there. It is read again when it is
   * another file than the last time (inode, size, times of content and of inode), or after an hour: what a disk
   * has lost by itself changes no time.
   */
  of(file: string): Promise<string>;
}

/** @throws HypervisorError which names the first file that has another digest. */
export async function requireDigests(
  digests: Digests,
  expected: Iterable<readonly [file: string, digest: string]>,
  what: string,
): Promise<void> {
  for (const [file, digest] of expected) {
    const actual = await digests.of(file);
    if (actual === digest) continue;
    throw new HypervisorError(
      `${what} has been altered: ${file} has the digest ${actual}, not ${digest}. It is not used.`,
    );
  }
}

const oldestMs = 60 * 60 * 1000;

export function createDigests(): Digests {
  const known = new Map<string, { fingerprint: string; digest: Promise<string>; at: number }>();
  return {
    async of(file) {
      const fingerprint = await fingerprintOf(file);
      if (fingerprint === undefined) {
        known.delete(file);
        return 'missing';
      }
      const last = known.get(file);
      if (last?.fingerprint === fingerprint && performance.now() - last.at < oldestMs) return last.digest;
      const digest = file.endsWith(rawDisk) ? sparseDigest(file) : wholeDigest(file);
      known.set(file, { fingerprint, digest, at: performance.now() });
      digest.catch(() => known.delete(file));
      return digest;
    },
  };
}

/** The empty disks: gigabytes of holes. */
const rawDisk = '.ext4';

async function fingerprintOf(file: string): Promise<string | undefined> {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
    return [ino, size, mtimeNs, ctimeNs].join(' ');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** In a process of its own: it would hold up everything else here. */
async function wholeDigest(file: string): Promise<string> {
  return (await runTool('sha256sum', ['--binary', '--', file], { timeoutMs }))
    .replace(/^\\/, '')
    .slice(0, 64);
}

const chunkSize = 1024 * 1024;
const blockSize = 4096;
const zeros = Buffer.alloc(blockSize);

/**
 * SHA-256 over a sparse file's size and those of its blocks that are not all zeros, each with where it is. Holes are
 * not read. What counts as one must not matter: the map calls what was allocated and never written data while it is
 * in the page cache, and a hole afterwards (lseek(2), SEEK_HOLE).
 */
export async function sparseDigest(file: string): Promise<string> {
  const map = JSON.parse(
    await runTool('qemu-img', ['map', '--output=json', '-f', 'raw', file], { timeoutMs }),
  ) as readonly { start: number; length: number; data: boolean }[];
  const hash = createHash('sha256');
  const handle = await open(file, 'r');
  try {
    hash.update(`${(await handle.stat()).size}\n`);
    const chunk = Buffer.alloc(chunkSize);
    let end = 0;
    for (const { start, length } of map.filter(({ data }) => data)) {
      // By whole blocks, each once, wherever the map cuts.
      let at = Math.max(end, start - (start % blockSize));
      end = Math.max(end, Math.ceil((start + length) / blockSize) * blockSize);
      while (at < end) {
        const { bytesRead } = await handle.read(chunk, 0, Math.min(chunkSize, end - at), at);
        if (bytesRead === 0) break;
        for (let offset = 0; offset < bytesRead; offset += blockSize) {
          const block = chunk.subarray(offset, Math.min(offset + blockSize, bytesRead));
          if (block.equals(zeros.subarray(0, block.length))) continue;
          hash.update(`\n${at + offset}\n`);
          hash.update(block);
        }
        at += bytesRead;
      }
    }
  } finally {
    await handle.close();
  }
  return hash.digest('hex');
}
