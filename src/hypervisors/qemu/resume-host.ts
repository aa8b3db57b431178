import type { QemuDeps } from './deps.ts';
import type { HostRecord } from './host-record.ts';
import type { HostLayout } from './layout.ts';

/** Continues a paused or suspended VM; a running one is left alone. @returns false if there is no VM to continue. */
export async function resumeHost(
  { starter, suspension }: Pick<QemuDeps, 'starter' | 'suspension'>,
  at: HostLayout,
  record: HostRecord,
): Promise<boolean> {
  await starter.killUnfinishedLaunch(at);
  return suspension.resume(at, record, (memoryImage) => starter.load(at, record, memoryImage));
}
