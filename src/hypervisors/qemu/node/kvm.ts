import { access, chmod, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { release, tmpdir } from 'node:os';
import path from 'node:path';
import { runTool } from '../../run-tool.ts';
import { qemuProgram } from '../launch/arguments.ts';
import { kvmDevice, openJail } from '../launch/jail.ts';
import type { Accelerator } from '../options.ts';
import { errorMessage } from '../../../lib/error-message.ts';
import { writeFileAtomically } from '../../../lib/write-file-atomically.ts';

/** Whether the node's KVM runs guests, and why Berth thinks so. */
export interface KvmVerdict {
  readonly accelerator: Accelerator;
  /** For the log and for `berth doctor`. */
  readonly reason: string;
}

/** User and group id of `nobody`. */
const nobody = 65_534;

/** A guest that really runs under KVM finishes within a second. */
const probeTimeoutMs = 5_000;

/**
 * A boot sector that counts down from 400 million and then writes 0x2a to the debug-exit port 0xf4, on which
 * QEMU exits with status 2 * 0x2a + 1. It counts because a KVM that does not really work also
 * executes a few instructions, thousands of times slower than any CPU:
 *   mov ecx, 400000000; l: dec ecx; jnz l; mov al, 0x2a; mov dx, 0xf4; out dx, al; h: hlt; jmp h
 */
const bootSector = Buffer.alloc(512);
Buffer.from([
  ...[0x66, 0xb9, 0x00, 0x84, 0xd7, 0x17, 0x66, 0x49, 0x75, 0xfc],
  ...[0xb0, 0x2a, 0xba, 0xf4, 0x00, 0xee, 0xf4, 0xeb, 0xfd],
]).copy(bootSector);
bootSector.writeUInt16LE(0xaa55, 510);
const provenStatus = 2 * 0x2a + 1;

/**
 * Decides by booting a tiny guest. That `/dev/kvm` exists, opens and creates VMs proves nothing: inside another VM it
 * may never run one. The verdict is cached in `cacheFile` until the kernel, QEMU or the device's permissions change.
 */
export async function probeKvm(cacheFile: string): Promise<KvmVerdict> {
  const version = (await runTool(qemuProgram, ['--version'])).split('\n')[0] ?? '';
  const about = `${release()}, ${version}, ${await deviceRights()}`;
  const known = await readFile(cacheFile, 'utf8')
    .then((text) => JSON.parse(text) as (KvmVerdict & { about: string }) | null)
    .catch(() => undefined);
  if (known?.about === about) return { accelerator: known.accelerator, reason: known.reason };
  const verdict = await probe(path.dirname(cacheFile));
  await writeFileAtomically(cacheFile, `${JSON.stringify({ ...verdict, about })}\n`, { mode: 0o644 });
  return verdict;
}

async function deviceRights(): Promise<string> {
  return stat(kvmDevice).then(
    ({ mode, uid, gid }) => `${kvmDevice} ${(mode & 0o777).toString(8)} ${uid}:${gid}`,
    () => `no ${kvmDevice}`,
  );
}

/**
 * The groups, at most one, that a host's user needs to open KVM's device: none if everybody may open it, or if its
 * group is root's, which no host gets.
 */
export async function kvmGroups(): Promise<readonly number[]> {
  const { mode, gid } = await stat(kvmDevice);
  const isForAll = (mode & 0o006) === 0o006;
  const isForGroup = (mode & 0o060) === 0o060;
  return !isForAll && isForGroup && gid !== 0 ? [gid] : [];
}

async function probe(stateDirectory: string): Promise<KvmVerdict> {
  try {
    await access(kvmDevice);
  } catch {
    return { accelerator: 'tcg', reason: `${kvmDevice} does not exist: guests are emulated` };
  }
  const problem = await runTinyGuest(stateDirectory, 'kvm', probeTimeoutMs);
  return problem === undefined
    ? { accelerator: 'kvm', reason: "a guest ran under KVM in the hosts' jail" }
    : {
        accelerator: 'tcg',
        reason: `${kvmDevice} exists but does not run a guest in the hosts' jail (${problem.slice(0, 300)}): guests are emulated`,
      };
}

/**
 * Runs a tiny guest the way hosts run: in their jail, as an ordinary user with no more groups than theirs. A KVM that
 * only root can use would not help.
 * @returns the problem; undefined if the guest ran.
 */
export async function runTinyGuest(
  stateDirectory: string,
  accelerator: Accelerator,
  timeoutMs: number,
): Promise<string | undefined> {
  const directory = await mkdtemp(path.join(tmpdir(), 'berth-kvm-'));
  try {
    await chmod(directory, 0o755);
    const disk = path.join(directory, 'boot-sector');
    await writeFileAtomically(disk, bootSector, { mode: 0o644, durable: false });
    const groups = [nobody, ...(accelerator === 'kvm' ? await kvmGroups() : [])];
    const guest = [
      ...[qemuProgram, '-machine', `pc,accel=${accelerator}`, '-cpu', accelerator === 'kvm' ? 'host' : 'max'],
      ...['-m', '16M', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04'],
      ...['-drive', `file=${disk},format=raw,if=floppy,readonly=on`],
    ];
    const [bwrap = '', ...jailed] = (await openJail(stateDirectory, accelerator)).command(guest, directory);
    await runTool(
      'setpriv',
      [
        ...[`--reuid=${nobody}`, `--regid=${nobody}`, `--groups=${groups.join(',')}`, '--no-new-privs'],
        // --die-with-parent below: the guest ends with the timeout.
        ...['--inh-caps=-all', '--bounding-set=-all', '--', bwrap, '--die-with-parent', ...jailed],
      ],
      { timeoutMs },
    );
    return 'the guest ended without reporting';
  } catch (error) {
    const reason = errorMessage(error);
    return reason.includes(`exit code ${provenStatus})`) ? undefined : reason;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
