import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { runTool } from '../../run-tool.ts';

/** qcow2 header: the magic `QFI\xfb`, and at offset 24 the virtual size (QEMU's docs/interop/qcow2.txt). */
const magic = 0x514649fb;
const sizeAt = 24;
const headerSize = 32;

/** Memory limit of qemu-img in bytes; the tables of a valid image need far less. */
const maxMemory = 1024 ** 3;

/** Files of the node that qemu-img needs, all read-only. */
const program = '/usr/bin/qemu-img';
const visible = [program, '/usr/lib', '/usr/lib64'];

/**
 * Grows a disk that no VM uses to at least this size.
 *
 * A compromised QEMU may have written anything into the file, including references to other files, which any program
 * that opens the image would open and write. So root reads the size only; qemu-img runs as the host's user in a jail
 * that contains this file and its own program.
 * @param maxBytes limit for the resulting file.
 * @throws HypervisorError if the file is not a qcow2 image, or qemu-img can't read it.
 */
export async function growDisk(file: string, diskGib: number, uid: number, maxBytes: number): Promise<void> {
  if ((await virtualSize(file)) >= BigInt(diskGib) * 1024n ** 3n) return;
  // Without its backing files: every start names them again, so the paths in the header may be outdated.
  const alone = { driver: 'qcow2', file: { driver: 'file', filename: '/disk' }, backing: null };
  await runTool('setpriv', [
    ...[`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--no-new-privs'],
    ...['--inh-caps=-all', '--bounding-set=-all', '--'],
    ...['prlimit', `--fsize=${maxBytes}`, `--as=${maxMemory}`, '--nofile=64', '--core=1', '--'],
    ...['bwrap', '--unshare-all', '--unshare-user', '--disable-userns', '--clearenv', '--cap-drop', 'ALL'],
    ...['--new-session', '--die-with-parent'],
    ...visible.flatMap((path) => ['--ro-bind', path, path]),
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
      throw new HypervisorError(`${file} is not a qcow2 image: it can't be grown`);
    }
    return header.readBigUInt64BE(sizeAt);
  } finally {
    await handle.close();
  }
}
