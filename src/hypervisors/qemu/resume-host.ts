import type { QemuDeps } from './deps.ts';
import type { HostRecord } from './host-record.ts';
import type { HostLayout } from './layout.ts';
import type { ResumeOutcome } from './memory/suspension.ts';

/** Continues a paused or suspended VM; a running one is left alone. */
export async function resumeHost(
  { starter, suspension }: Pick<QemuDeps, 'starter' | 'suspension'>,
  at: HostLayout,
  record: HostRecord,
): Promise<ResumeOutcome> {
  await starter.killUnfinishedLaunch(at);
  return suspension.resume(at, record, (memory) => starter.load(at, record, memory));
}
