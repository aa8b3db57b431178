import { refused } from '../errors.ts';
import type { BindingDeps } from './deps.ts';
import { findBinding } from './find-binding.ts';
import { operationRetentionMs } from './operation-retention.ts';
import type { BindingReference } from './references.ts';

/**
 * Describes the state of a binding.
 * @throws RefusedError 404 if it never existed, 410 if it was unbound longer than {@link operationRetentionMs} ago.
 */
export async function lastBindingOperation(deps: BindingDeps, request: BindingReference): Promise<string> {
  const { binding } = await findBinding(deps, request);
  if (binding === undefined) throw refused.bindingNotFound();
  if (binding.revokedAt === undefined) return 'Bound';
  // The row stays permanently, for its serial and its id, but is reported only as long as an operation's record.
  if (binding.revokedAt.getTime() < Date.now() - operationRetentionMs) throw refused.gone();
  return 'Unbound';
}
