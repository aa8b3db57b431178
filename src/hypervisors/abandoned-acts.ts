import { AsyncLocalStorage } from 'node:async_hooks';
import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';

/** The act that the current async call chain belongs to. */
const current = new AsyncLocalStorage<{ isAbandoned: boolean }>();

/**
 * Runs an act that may be abandoned while it hangs: its caller continues, and the host's lock passes on.
 * @returns the act, and a function that abandons it: {@link requireNotAbandoned} then throws within it.
 */
export function runAbandonable<T>(act: () => Promise<T>): {
  readonly ended: Promise<T>;
  abandon: () => void;
} {
  const state = { isAbandoned: false };
  return {
    ended: current.run(state, act),
    abandon() {
      state.isAbandoned = true;
    },
  };
}

/**
 * Called before anything is begun that changes a host from outside this process. An abandoned act that resumes no longer
 * has the host's lock, and must not do stale work.
 * @throws HypervisorError if the act that this belongs to was abandoned.
 */
export function requireNotAbandoned(): void {
  if (current.getStore()?.isAbandoned !== true) return;
  throw new HypervisorError('the act on the host was abandoned, because it took too long');
}
