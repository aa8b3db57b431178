import { execFile } from 'node:child_process';
import { chmod, chown, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { growDisk } from '../../../../src/hypervisors/qemu/disk/grow-disk.ts';
import { testSlot } from '../../../support/test-slot.ts';

const execute = promisify(execFile);
const uid = 616_000 + testSlot;
const gib = 1024 ** 3;

/** Needs root but starts no VM. qemu-img writes the header that a compromised QEMU could write. */
describe('grow disk', () => {
  let folder: string;
  let disk: string;
  let bystander: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'berth-grow-'));
    // Like a host's folder: its user can enter it.
    await chmod(folder, 0o711);
    disk = path.join(folder, 'disk.qcow2');
    bystander = path.join(folder, 'bystander');
  });
  afterEach(() => rm(folder, { recursive: true }));

  async function makeDisk(...options: string[]) {
    await execute('qemu-img', ['create', '-q', '-f', 'qcow2', ...options, disk, '1G']);
    await chown(disk, uid, uid);
    await chmod(disk, 0o600);
  }
  const grow = (diskGib: number) => growDisk(disk, diskGib, uid, 4 * gib);
  const size = async () =>
    (
      JSON.parse((await execute('qemu-img', ['info', '--output=json', disk])).stdout) as {
        'virtual-size': number;
      }
    )['virtual-size'];

  it('grow disk: keeps content and owner whatever its backing file is, and never shrinks', async () => {
    const base = path.join(folder, 'base');
    await execute('truncate', ['--size=1G', base]);
    await makeDisk('-b', base, '-F', 'raw');
    await execute('qemu-io', ['-c', 'write -P 7 512k 64k', disk]);
    await rm(base);
    await grow(2);
    await grow(1);
    await execute('truncate', ['--size=1G', base]);
    expect(await size()).toBe(2 * gib);
    await execute('qemu-io', ['-c', 'read -P 7 512k 64k', '-c', 'read -P 0 1536M 64k', disk]);
    expect((await stat(disk)).uid).toBe(uid);
  });

  // Fails if root runs qemu-img on the file: the file named by the header had grown to 2 GiB.
  it('grow disk: never writes to a file that the header names', async () => {
    await makeDisk('-o', `data_file=${bystander},data_file_raw=on`);
    expect((await stat(bystander)).size).toBe(gib);
    await expect(grow(2)).rejects.toThrow(/qemu-img: Could not open.*No such file/s);
    expect((await stat(bystander)).size).toBe(gib);
    // A file that the host's user may write is not visible either.
    await chown(bystander, uid, uid);
    await expect(grow(2)).rejects.toThrow(/qemu-img: Could not open.*No such file/s);
    expect((await stat(bystander)).size).toBe(gib);
  });

  // Fails without the check of the magic: the file counted as large enough.
  it('grow disk: refuses a file that is not qcow2, and a symbolic link', async () => {
    await writeFile(disk, 'x'.repeat(1024));
    await expect(grow(2)).rejects.toThrow(/is not a qcow2 image/);
    await writeFile(disk, '');
    await expect(grow(2)).rejects.toThrow(/is not a qcow2 image/);
    await rm(disk);
    await writeFile(bystander, 'x'.repeat(1024));
    await execute('ln', ['-s', bystander, disk]);
    await expect(grow(2)).rejects.toThrow(/ELOOP/);
    expect(await readFile(bystander, 'utf8')).toBe('x'.repeat(1024));
  });

  // Fails without `prlimit --fsize`: the file grew.
  it('grow disk: the file never exceeds the limit for files of its host', async () => {
    await makeDisk();
    const { size: before } = await stat(disk);
    // The tables of such a large disk need space after the existing content.
    await expect(growDisk(disk, 4096, uid, before)).rejects.toThrow(/setpriv failed/);
    expect((await stat(disk)).size).toBe(before);
  });
});
