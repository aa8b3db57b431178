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

/**
 * No machine is started, but root makes what only root can. In the place of a QEMU that its guest has taken over
 * qemu-img writes the header.
 */
describe('a disk that grows', () => {
  let folder: string;
  let disk: string;
  let bystander: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'berth-grow-'));
    // As that of a host: its user passes through.
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

  it('keeps what is on it and whose it is, whatever lies below it now, and never shrinks', async () => {
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

  // Seen to fail with qemu-img run by root on the file itself: the file that its header names had grown to 2 GiB.
  it('lets no file be written to that its header names', async () => {
    await makeDisk('-o', `data_file=${bystander},data_file_raw=on`);
    expect((await stat(bystander)).size).toBe(gib);
    await expect(grow(2)).rejects.toThrow(/qemu-img: Could not open.*No such file/s);
    expect((await stat(bystander)).size).toBe(gib);
    // One that it could write to itself is out of sight as well.
    await chown(bystander, uid, uid);
    await expect(grow(2)).rejects.toThrow(/qemu-img: Could not open.*No such file/s);
    expect((await stat(bystander)).size).toBe(gib);
  });

  // Seen to fail without the look at the magic: it was taken for large enough.
  it('is a qcow2, as far as its beginning tells, and no link to another file', async () => {
    await writeFile(disk, 'x'.repeat(1024));
    await expect(grow(2)).rejects.toThrow(/is no disk of a host/);
    await writeFile(disk, '');
    await expect(grow(2)).rejects.toThrow(/is no disk of a host/);
    await rm(disk);
    await writeFile(bystander, 'x'.repeat(1024));
    await execute('ln', ['-s', bystander, disk]);
    await expect(grow(2)).rejects.toThrow(/ELOOP/);
    expect(await readFile(bystander, 'utf8')).toBe('x'.repeat(1024));
  });

  // Seen to fail without `prlimit --fsize`: it grew.
  it('stays within the size that files of its host may have', async () => {
    await makeDisk();
    const { size: before } = await stat(disk);
    // The table of so large a disk needs a place behind what is there.
    await expect(growDisk(disk, 4096, uid, before)).rejects.toThrow(/setpriv failed/);
    expect((await stat(disk)).size).toBe(before);
  });
});
