import { refused } from '../errors.ts';
import { type BindingView, storedBindingView } from './binding-view.ts';
import type { BindingDeps } from './deps.ts';
import { findBinding } from './find-binding.ts';
import type { BindingReference } from './references.ts';

/** @throws RefusedError (404) if there is no such binding, or it was revoked. */
export async function fetchBinding(deps: BindingDeps, request: BindingReference): Promise<BindingView> {
  const { instance, binding } = await findBinding(deps, request);
  const host = instance === undefined ? undefined : await deps.store.records.hostOfInstance(instance.id);
  if (host === undefined || binding === undefined) throw refused.bindingNotFound();
  return storedBindingView(deps, binding, host);
}
