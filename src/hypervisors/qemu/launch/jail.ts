import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readdir, realpath, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { leaseMs } from '../../../core/lease-duration.ts';
import { exists } from '../../../lib/exists.ts';
import { publishFolder } from '../../../lib/write-file-atomically.ts';
import { takeFileLock } from '../../file-lock.ts';
import { runTool } from '../../run-tool.ts';
import { qemuProgram } from './arguments.ts';
import type { Accelerator } from '../options.ts';

/**
 * The files that QEMU opens by name. Everything else (disks, kernel, memory, tap, control sockets) is passed as an open
 * descriptor and has no name in the jail.
 */
const emulator = [qemuProgram, '/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so'];
const firmware = ['bios-256k.bin', 'kvmvapic.bin', 'linuxboot_dma.bin'];
const firmwareDirectories = ['/usr/share/seabios', '/usr/share/qemu'];

export const kvmDevice = '/dev/kvm';

/** The sandbox around a VM's QEMU process. */
export interface Jail {
  /**
   * The command that runs `command` inside.
   * @param exchangeDirectory the only folder of the node that is visible, under its own path and read-only; sockets in
   * it can be connected to.
   */
  command(command: readonly string[], exchangeDirectory: string): readonly string[];
}

/**
 * A jail made by bubblewrap (bwrap(1)): a root that contains only copies of QEMU and its libraries; separate user,
 * mount, pid, ipc, uts and cgroup namespaces; no Linux capabilities, no new privileges, no environment. libexec/berth-launch
 * sets user, limits and network namespace. The copies are made once, and again if one of the files has changed; running
 * hosts keep theirs.
 * @param accelerator with KVM its device is visible too.
 */
export async function openJail(stateDirectory: string, accelerator: Accelerator = 'tcg'): Promise<Jail> {
  const programs = path.join(await ensureRoot(path.join(stateDirectory, 'jail')), 'usr');
  return {
    command: (command, exchangeDirectory) => [
      '/usr/bin/bwrap',
      '--unshare-user',
      '--disable-userns',
      '--unshare-pid',
      '--unshare-ipc',
      '--unshare-uts',
      '--unshare-cgroup',
      '--clearenv',
      '--cap-drop',
      'ALL',
      '--new-session',
      '--as-pid-1',
      '--ro-bind',
      programs,
      '/usr',
      '--symlink',
      'usr/lib',
      '/lib',
      '--symlink',
      'usr/lib64',
      '/lib64',
      '--proc',
      '/proc',
      '--dev-bind',
      '/dev/null',
      '/dev/null',
      '--dev-bind',
      '/dev/urandom',
      '/dev/urandom',
      // QEMU opens it by name. Its owner is unchanged: the launcher adds its group to the host's user (node/kvm.ts).
      ...(accelerator === 'kvm' ? ['--dev-bind', kvmDevice, kvmDevice] : []),
      '--ro-bind',
      exchangeDirectory,
      exchangeDirectory,
      '--remount-ro',
      '/',
      '--',
      ...command,
    ],
  };
}

/** Copies instead of bind mounts: a hundred mounts would cost each restore more than everything else together. */
async function ensureRoot(directory: string): Promise<string> {
  const files = await requiredFiles();
  const root = path.join(directory, await nameOf(files));
  if (await exists(root)) return root;
  await mkdir(directory, { recursive: true, mode: 0o755 });
  // A worker that starts now would mistake our half-made root for a leftover and remove it.
  const lock = await takeFileLock(path.join(directory, 'lock'), { patienceMs: leaseMs, logger: undefined });
  try {
    if (!(await exists(root))) await makeRoot(directory, root, files);
  } finally {
    await lock.release();
  }
  return root;
}

/** Removes what a killed attempt has left, then makes the root. */
async function makeRoot(directory: string, root: string, files: readonly string[]): Promise<void> {
  for (const left of await readdir(directory)) {
    if (left.startsWith('making-')) await rm(path.join(directory, left), { recursive: true, force: true });
  }
  const attempt = await mkdtemp(path.join(directory, 'making-'));
  try {
    await mkdir(attempt, { recursive: true, mode: 0o755 });
    for (const file of files) {
      await mkdir(path.join(attempt, path.dirname(file)), { recursive: true, mode: 0o755 });
      await copyFile(file, path.join(attempt, file));
    }
    await runTool('chmod', ['--recursive', 'u=rwX,go=rX', attempt]);
    await publishFolder(attempt, root);
  } finally {
    await rm(attempt, { recursive: true, force: true });
  }
}

async function requiredFiles(): Promise<readonly string[]> {
  const programs: string[] = [];
  for (const file of emulator) if (await exists(file)) programs.push(file);
  const libraries = (await runTool('ldd', programs)).matchAll(/^\s+(?:\S+ => )?(\/\S+) \(0x/gm);
  const found = [...programs];
  for (const [, library = ''] of libraries) {
    // /lib and /lib64 are links (Debian's merged /usr): the jail has their targets.
    found.push(path.join(await realpath(path.dirname(library)), path.basename(library)));
  }
  for (const name of firmware) {
    const candidates = firmwareDirectories.map((directory) => path.join(directory, name));
    const present = await Promise.all(candidates.map(exists));
    found.push(...candidates.filter((_, index) => present[index]));
  }
  if (!programs.includes(qemuProgram)) {
    throw new HypervisorError(`${qemuProgram} is not installed (\`npm start\` installs it)`);
  }
  const outsideUsr = found.filter((file) => !file.startsWith('/usr/'));
  if (outsideUsr.length > 0) {
    throw new HypervisorError(
      `QEMU needs files outside /usr, which its jail does not have: ${outsideUsr.join(', ')}`,
    );
  }
  return [...new Set(found)].sort();
}

async function nameOf(files: readonly string[]): Promise<string> {
  const facts = await Promise.all(
    files.map(async (file) => {
      const { ino, size, mtimeMs } = await stat(file);
      return [file, ino, size, mtimeMs];
    }),
  );
  return createHash('sha256').update(JSON.stringify(facts)).digest('hex').slice(0, 32);
}
