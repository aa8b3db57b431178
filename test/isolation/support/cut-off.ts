import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import type { HostSpec } from '../../../src/core/hypervisor/host-spec.ts';
import type { QemuOptions } from '../../../src/hypervisors/qemu/options.ts';
import { compiled } from '../../support/build.ts';

const execute = promisify(execFile);

/**
 * Has a worker of its own start or destroy a host, and kills it before the change of the machine that `killBefore`
 * counts from 1.
 * @returns `done` where there were fewer changes; else the signal that ended it.
 * @throws Error with what it printed, where it ended in another way.
 */
export async function cutOff(
  options: QemuOptions,
  act: readonly ['start', HostSpec] | readonly ['destroy', string],
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
