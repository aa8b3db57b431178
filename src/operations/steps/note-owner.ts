import type { HostSpec } from '../../core/hypervisor/host-spec.ts';
import type { StepContext } from '../step.ts';

/**
 * Notes beside the host whose it is, before the create or update succeeds: should Postgres lose its last transactions, an
 * operator can adopt the host.
 */
export async function noteOwner({ ownerNotes, owners }: StepContext, spec: HostSpec): Promise<void> {
  const owner = await owners.ownerOf(spec.hostId);
  if (owner !== undefined) await ownerNotes.write({ spec, ...owner });
}
