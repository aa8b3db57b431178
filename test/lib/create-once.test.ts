import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createOnce } from '../../src/lib/create-once.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-files-'));
});
afterEach(() => rm(directory, { recursive: true }));

describe('createOnce', () => {
  // Seen to fail with the process id in place of a random name for each attempt: one removed another's.
  it('createOnce: all of many concurrent callers read the same whole file, and no temporary file is left', async () => {
    const file = path.join(directory, 'secret');
    const read = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        await createOnce(file, () => `${index}`.repeat(1_000));
        return readFile(file, 'utf8');
      }),
    );
    expect(new Set(read).size).toBe(1);
    expect(read[0]).toMatch(/^(\d+?)\1{999}$/);
    expect(await readdir(directory)).toEqual(['secret']);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  it('createOnce: leaves an existing file unchanged and does not call make', async () => {
    const file = path.join(directory, 'secret');
    await createOnce(file, () => 'first');
    await createOnce(file, () => {
      throw new Error('made again');
    });
    expect(await readFile(file, 'utf8')).toBe('first');
  });

  it('createOnce: throws and leaves no file if it can not be written', async () => {
    await expect(createOnce(path.join(directory, 'none', 'secret'), () => 'x')).rejects.toThrow('ENOENT');
    expect(await readdir(directory)).toEqual([]);
  });
});
