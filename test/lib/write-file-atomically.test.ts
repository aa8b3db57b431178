import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { writeFileAtomically } from '../../src/lib/write-file-atomically.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'berth-atomic-'));
});
afterEach(() => rm(directory, { recursive: true }));

const modeOf = async (file: string) => (await stat(file)).mode & 0o777;

describe('writeFileAtomically', () => {
  it('writeFileAtomically: creates a file that only its owner can read, and leaves no temporary file', async () => {
    const file = path.join(directory, 'secret');
    await writeFileAtomically(file, 'content\n');
    expect(await readFile(file, 'utf8')).toBe('content\n');
    expect(await modeOf(file)).toBe(0o600);
    expect(await readdir(directory)).toEqual(['secret']);
  });

  it('writeFileAtomically: replaces a file together with its permissions', async () => {
    const file = path.join(directory, 'open');
    await writeFile(file, 'old');
    await chmod(file, 0o666);
    await writeFileAtomically(file, 'new', { mode: 0o644, durable: false });
    expect(await readFile(file, 'utf8')).toBe('new');
    expect(await modeOf(file)).toBe(0o644);
  });

  it('writeFileAtomically: shows readers one complete content, however many write at once', async () => {
    const file = path.join(directory, 'contended');
    const contents = Array.from({ length: 50 }, (_, index) => `${index % 10}`.repeat(10_000));
    await Promise.all(contents.map((content) => writeFileAtomically(file, content)));
    expect(contents).toContain(await readFile(file, 'utf8'));
    expect(await readdir(directory)).toEqual(['contended']);
  });

  it('writeFileAtomically: leaves no temporary file if the file can not be replaced', async () => {
    const folder = path.join(directory, 'folder');
    await mkdir(folder);
    await expect(writeFileAtomically(folder, 'content')).rejects.toThrow('EISDIR');
    expect(await readdir(directory)).toEqual(['folder']);
  });
});
