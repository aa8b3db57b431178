import { createHash } from 'node:crypto';
import { open, stat } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { runTool } from '../../run-tool.ts';

/** Reading a large template takes seconds, on a busy node much longer. */
const timeoutMs = 10 * 60 * 1000;

/** Digests of files that must not change. */
export interface Digests {
  /**
   * SHA-256 of a file, lower-case hexadecimal; `missing` if it does not exist. Cached until inode, size, mtime or ctime
   * change, but for an hour at most, because bit rot changes no timestamp.
   */
  of(file: string): Promise<string>;
}

/** @throws HypervisorError that names the first file with a wrong digest. */
export async function requireDigests(
  digests: Digests,
  expected: Iterable<readonly [file: string, digest: string]>,
  what: string,
): Promise<void> {
  for (const [file, digest] of expected) {
    const actual = await digests.of(file);
    if (actual === digest) continue;
    throw new HypervisorError(
      `${what} has changed: ${file} has the digest ${actual}, not ${digest}. It is not used.`,
    );
  }
}

const maxAgeMs = 60 * 60 * 1000;

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
      if (last?.fingerprint === fingerprint && performance.now() - last.at < maxAgeMs) return last.digest;
      const digest = file.endsWith(rawDisk) ? sparseDigest(file) : wholeDigest(file);
      known.set(file, { fingerprint, digest, at: performance.now() });
      digest.catch(() => known.delete(file));
      return digest;
    },
  };
}

/** Empty disks consist of gigabytes of holes. */
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

/** In a separate process, because it would block the event loop. */
async function wholeDigest(file: string): Promise<string> {
  return (await runTool('sha256sum', ['--binary', '--', file], { timeoutMs }))
    .replace(/^\\/, '')
    .slice(0, 64);
}

const chunkSize = 1024 * 1024;
const blockSize = 4096;
const zeros = Buffer.alloc(blockSize);

/**
 * SHA-256 over a sparse file's size and its non-zero blocks with their offsets. Holes are not read. The result does not
 * depend on what counts as a hole: allocated but unwritten blocks are data while they are in the page cache, and holes
 * afterwards (lseek(2), SEEK_HOLE).
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
      // Whole blocks, each once, wherever an extent starts or ends.
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
