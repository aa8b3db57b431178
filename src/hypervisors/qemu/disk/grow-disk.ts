import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { runTool } from '../../run-tool.ts';

/** Of a qcow2 file: `QFI\xfb`, and 24 bytes on the size that a guest sees (QEMU's docs/interop/qcow2.txt). */
const magic = 0x514649fb;
const sizeAt = 24;
const headerSize = 32;

/** qemu-img's own memory, in bytes: its largest honest tables are far smaller. */
const mostMemory = 1024 ** 3;

/** What of this machine qemu-img needs to run, all of it read-only. */
const program = '/usr/bin/qemu-img';
const seen = [program, '/usr/lib', '/usr/lib64'];

/**
 * Makes a disk at least this large that no machine uses.
 *
 * A QEMU that its guest has taken over may have written anything into the file, also names of other files that
 * belong to the disk, which whoever opens it would open and write to. So root reads no more than the size by itself;
 * qemu-img runs as the host's own user, where no file but this one and its own program are in sight.
 * @param mostBytes what the file may come to.
 * @throws HypervisorError where the file is no qcow2, or qemu-img can't make sense of it.
 */
export async function growDisk(file: string, diskGib: number, uid: number, mostBytes: number): Promise<void> {
  if ((await virtualSize(file)) >= BigInt(diskGib) * 1024n ** 3n) return;
  // Alone: what lies below it is named anew at every start, and need not be where it was when this was made.
  const alone = { driver: 'qcow2', file: { driver: 'file', filename: '/disk' }, backing: null };
  await runTool('setpriv', [
    ...[`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--no-new-privs'],
    ...['--inh-caps=-all', '--bounding-set=-all', '--'],
    ...['prlimit', `--fsize=${mostBytes}`, `--as=${mostMemory}`, '--nofile=64', '--core=1', '--'],
    ...['bwrap', '--unshare-all', '--unshare-user', '--disable-userns', '--clearenv', '--cap-drop', 'ALL'],
    ...['--new-session', '--die-with-parent'],
    ...seen.flatMap((path) => ['--ro-bind', path, path]),
    ...['--symlink', 'usr/lib', '/lib', '--symlink', 'usr/lib64', '/lib64', '--bind', file, '/disk'],
    ...['--remount-ro', '/', '--'],
    ...[program, 'resize', '-q', `json:${JSON.stringify(alone)}`, `${diskGib}G`],
  ]);
}

async function virtualSize(file: string): Promise<bigint> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const header = Buffer.alloc(headerSize);
    const { bytesRead } = await handle.read(header, 0, headerSize, 0);
    if (bytesRead < headerSize || header.readUInt32BE(0) !== magic) {
      throw new HypervisorError(`${file} is no disk of a host: it can't be made larger`);
    }
    return header.readBigUInt64BE(sizeAt);
  } finally {
    await handle.close();
  }
}
