import { refused } from '../errors.ts';
import type { BindingDeps } from './deps.ts';
import { findBinding } from './find-binding.ts';
import type { BindingReference } from './references.ts';

/**
 * Revokes a binding, and returns once no connection with its certificate is open or accepted anywhere.
 * @throws RefusedError (410) if there is no such binding, or it was revoked before.
 */
export async function unbind(deps: BindingDeps, request: BindingReference): Promise<void> {
  const { binding } = await findBinding(deps, request);
  if (binding === undefined) throw refused.gone();
  await deps.store.records.revokeBinding(binding.id);
  // Also if it was revoked before: an earlier unbind may have been killed while it waited here.
  await deps.revocations.settled([binding.id]);
  if (binding.state === 'revoked') throw refused.gone();
}
