import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import type { HostSpec } from '../../../src/core/hypervisor/host-spec.ts';
import type { QemuOptions } from '../../../src/hypervisors/qemu/options.ts';
import { compiled } from '../../support/build.ts';

const execute = promisify(execFile);

/**
 * Lets a separate worker process start, grow or destroy a host, and kills it before change number `killBefore` (from 1) to the
 * node; of `grow` before each message to QEMU or the guest, too.
 * @returns `done` if there were fewer changes; otherwise the signal that ended it.
 * @throws Error with its output if it ended differently.
 */
export async function cutOff(
  options: QemuOptions,
  act: readonly ['start' | 'grow', HostSpec] | readonly ['destroy', string],
  killBefore: number,
): Promise<'SIGKILL' | 'done'> {
  const [method, subject] = act;
  const ended = await execute(process.execPath, [
    path.join(import.meta.dirname, 'cut-off.mjs'),
    path.join(await compiled(), 'hypervisors', 'qemu', 'qemu.js'),
    JSON.stringify({ ...options, logger: undefined }),
    method,
    JSON.stringify(subject),
    String(killBefore),
  ]).then(
    ({ stdout }) => stdout,
    (error: unknown) => (error as { signal?: string | null }).signal ?? String(error),
  );
  if (ended !== 'SIGKILL' && ended !== 'done') throw new Error(ended);
  return ended;
}
