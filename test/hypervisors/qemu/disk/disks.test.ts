import { mkdtemp, open, readdir, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createDigests, sparseDigest } from '../../../../src/hypervisors/qemu/integrity/digests.ts';
import { baseDiskDigest, ensureBaseDisk } from '../../../../src/hypervisors/qemu/disk/disks.ts';
import { hasVmTools } from '../../../support/has-vm-tools.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'berth-disks-'));
});
afterEach(() => rm(folder, { recursive: true }));

/** A sparse file of 64 MiB that contains these bytes. */
async function sparse(name: string, pieces: readonly (readonly [at: number, bytes: Buffer])[]) {
  const file = path.join(folder, name);
  const handle = await open(file, 'w');
  for (const [at, bytes] of pieces) await handle.write(bytes, 0, bytes.length, at);
  await handle.close();
  await truncate(file, 64 * 1024 ** 2);
  return file;
}

describe.skipIf(!hasVmTools)('sparse digest', () => {
  const mib = 1024 ** 2;
  const bytes = Buffer.from('what a host begins from');

  // Fails if extents are identified by their start, because allocation changes from moment to moment.
  it('sparse digest: depends on the content only, whether zeros are written or holes', async () => {
    const holes = await sparse('holes', [[3 * mib + 5, bytes]]);
    const zeros = await sparse('zeros', [
      [0, Buffer.alloc(2 * mib)],
      [2.5 * mib, Buffer.alloc(mib)],
      [3 * mib + 5, bytes],
      [60 * mib, Buffer.alloc(4 * mib)],
    ]);
    expect(await sparseDigest(zeros)).toBe(await sparseDigest(holes));
  });

  // Fails without the blocks' offsets, without the size, and without the last block.
  it('sparse digest: changes with a byte, its offset, or the size', async () => {
    const all = [
      await sparse('one', [[3 * mib, bytes]]),
      await sparse('other', [[3 * mib, Buffer.from('What a host begins from')]]),
      await sparse('elsewhere', [[5 * mib, bytes]]),
      await sparse('at-the-end', [[64 * mib - bytes.length, bytes]]),
      await sparse('larger', [[3 * mib, bytes]]),
      await sparse('empty', []),
    ];
    await truncate(path.join(folder, 'larger'), 65 * mib);
    const digests = await Promise.all(all.map(sparseDigest));
    expect(new Set(digests).size).toBe(all.length);
  });
});

describe.skipIf(!hasVmTools)('empty disk', () => {
  // Fails if each caller makes the file: it changed after its digest was computed.
  it('empty disk: concurrent callers get one file, which matches its digest', async () => {
    const seen = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const file = await ensureBaseDisk(folder, 1);
        return { file, inode: (await stat(file)).ino, digest: await baseDiskDigest(file) };
      }),
    );
    const [{ file, digest } = { file: '', digest: '' }] = seen;
    expect(new Set(seen.map(({ inode }) => inode)).size).toBe(1);
    expect(new Set(seen.map((each) => each.digest)).size).toBe(1);
    expect(await createDigests().of(file)).toBe(digest);
    expect((await readdir(path.dirname(file))).sort()).toEqual([
      path.basename(file),
      `${path.basename(file)}.sha256`,
    ]);
  });
});
