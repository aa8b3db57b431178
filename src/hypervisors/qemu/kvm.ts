import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { release, tmpdir } from 'node:os';
import path from 'node:path';
import { runTool } from '../process.ts';
import { qemuProgram } from './arguments.ts';
import type { Accelerator } from './options.ts';

/** Whether this machine's KVM runs guests, and how that is known. */
export interface KvmVerdict {
  readonly accelerator: Accelerator;
  /** In words, for the log and for `berth doctor`. */
  readonly reason: string;
}

/** A guest that really runs under KVM is through in a second. */
const probeTimeoutMs = 5_000;

/**
 * A boot sector that counts down from 400 million and then writes 0x2a to the debug-exit port 0xf4, upon which
 * QEMU ends with status 2 * 0x2a + 1. It has to count because a KVM that only pretends gets through a few
 * instructions too, thousands of times slower than any processor:
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
 * Decides by booting a tiny guest. That `/dev/kvm` exists, opens and creates virtual machines proves nothing:
 * inside other virtual machines it may never run one. The answer is remembered in `memoryFile` for as long as
 * kernel and QEMU are the same.
 */
export async function probeKvm(memoryFile: string): Promise<KvmVerdict> {
  const version = (await runTool(qemuProgram, ['--version'])).split('\n')[0] ?? '';
  const about = `${release()}, ${version}`;
  const known = await readFile(memoryFile, 'utf8').then(
    (text) => JSON.parse(text) as KvmVerdict & { about: string },
    () => undefined,
  );
  if (known?.about === about) return { accelerator: known.accelerator, reason: known.reason };
  const verdict = await probe();
  await writeFile(memoryFile, `${JSON.stringify({ ...verdict, about })}\n`);
  return verdict;
}

async function probe(): Promise<KvmVerdict> {
  try {
    await access('/dev/kvm');
  } catch {
    return { accelerator: 'tcg', reason: 'there is no /dev/kvm: guests are emulated' };
  }
  const directory = await mkdtemp(path.join(tmpdir(), 'berth-kvm-'));
  const disk = path.join(directory, 'boot-sector');
  try {
    await writeFile(disk, bootSector);
    await runTool(
      qemuProgram,
      [
        '-machine',
        'pc,accel=kvm',
        '-cpu',
        'host',
        '-m',
        '16M',
        '-nodefaults',
        '-no-user-config',
        '-display',
        'none',
        '-no-reboot',
        '-device',
        'isa-debug-exit,iobase=0xf4,iosize=0x04',
        '-drive',
        `file=${disk},format=raw,if=floppy,readonly=on`,
      ],
      { timeoutMs: probeTimeoutMs },
    );
    return { accelerator: 'tcg', reason: 'a guest under KVM ended without a sign: guests are emulated' };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return reason.includes(`exit code ${provenStatus})`)
      ? { accelerator: 'kvm', reason: 'a guest ran under KVM' }
      : {
          accelerator: 'tcg',
          reason: `/dev/kvm is there, but runs no guest (${reason.slice(0, 300)}): guests are emulated`,
        };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
