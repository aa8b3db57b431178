import { bind, type BindRequest } from './bind.ts';
import type { BindingView } from './binding-view.ts';
import type { BindingDeps } from './deps.ts';
import { fetchBinding } from './fetch-binding.ts';
import { lastBindingOperation } from './last-binding-operation.ts';
import type { BindingReference } from './references.ts';
import { unbind } from './unbind.ts';

/** What platforms do with bindings (OSB 2.17: binding, fetching, unbinding). Every verb is synchronous. */
export interface Bindings {
  bind(request: BindRequest): Promise<BindingView>;
  fetch(request: BindingReference): Promise<BindingView>;
  /** Returns once no connection with the binding's certificate is open or accepted anywhere. */
  unbind(request: BindingReference): Promise<void>;
  /** Describes the binding's state. */
  lastOperation(request: BindingReference): Promise<string>;
}

export function createBindings(deps: BindingDeps): Bindings {
  return {
    bind: (request) => bind(deps, request),
    fetch: (request) => fetchBinding(deps, request),
    unbind: (request) => unbind(deps, request),
    lastOperation: (request) => lastBindingOperation(deps, request),
  };
}
