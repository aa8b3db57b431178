import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Qmp } from '../launch/qmp.ts';

/** Bytes of one secret: a key of SipHash (include/linux/siphash.h). */
const secretBytes = 16;

/**
 * Overwrites secrets of a restored guest's kernel that it would share with all hosts of its template: with the keys of TCP
 * sequence numbers and timestamps, a tenant could compute those of another tenant's connections. The guest can't change
 * them itself, so it is done from outside, before its processors run. The page is copied: the template's stays as it is.
 * @param pid process id of the guest's QEMU.
 * @param addresses physical addresses in the guest, as its agent reported them when the template was frozen.
 * @throws HypervisorError if an address is not in the guest's memory.
 */
export async function renewKernelSecrets(
  qmp: Pick<Qmp, 'execute'>,
  pid: number,
  addresses: readonly number[],
): Promise<void> {
  if (addresses.length === 0) return;
  const memory = await open(`/proc/${pid}/mem`, 'r+');
  try {
    for (const address of addresses) {
      const secret = randomFillSync(Buffer.alloc(secretBytes));
      await memory.write(secret, 0, secretBytes, await processAddress(qmp, address));
    }
  } finally {
    await memory.close();
  }
}

/** The address in QEMU's process of a physical address in the guest (QEMU monitor, `gpa2hva`); `mem` is its only RAM. */
async function processAddress(qmp: Pick<Qmp, 'execute'>, address: number): Promise<number> {
  const answer = String(
    await qmp.execute('human-monitor-command', { 'command-line': `gpa2hva 0x${address.toString(16)}` }),
  );
  const found = /\(mem\) is 0x([0-9a-f]{1,13})\s*$/.exec(answer)?.[1];
  if (found === undefined) {
    throw new HypervisorError(
      `QEMU does not find the guest's address 0x${address.toString(16)} in its memory: ${answer.trim().slice(0, 200)}`,
    );
  }
  return Number.parseInt(found, 16);
}
