import { HypervisorError } from '../core/hypervisor/hypervisor-error.ts';
import type { Driver } from '../core/hypervisor/hypervisor.ts';
import { settleWithin } from '../lib/settle-within.ts';
import { runAbandonable } from './abandoned-acts.ts';
import { decorateHostMethods, hostIdOf, type HostMethod } from './host-methods.ts';

/** Methods that write, read or digest a host's memory or disk, or start or end its VM. */
const longMethods: ReadonlySet<HostMethod> = new Set<HostMethod>([
  ...(['prepare', 'start', 'stop', 'reshape', 'destroy'] as const),
  ...(['suspend', 'resume', 'park', 'verify'] as const),
]);

/** Longer than the sum of the deadlines within a method, so that these say what hangs. Milliseconds. */
export interface MethodDeadlines {
  readonly longMs: number;
  readonly shortMs: number;
}

const usualDeadlines: MethodDeadlines = { longMs: 12 * 60_000, shortMs: 2 * 60_000 };

/**
 * The driver, with a deadline on each method about one host. Every wait within a method has its own, much shorter
 * deadline; this one is for the wait that was overlooked. So a host's lock is never held forever, and a delete gets
 * through to a host on which something hangs. Goes inside {@link withHostLocks}.
 */
export function withDeadlines(driver: Driver, deadlines: MethodDeadlines = usualDeadlines): Driver {
  return decorateHostMethods(driver, ['act', 'question'], (method, target, call) => {
    const ms = longMethods.has(method) ? deadlines.longMs : deadlines.shortMs;
    const { ended, abandon } = runAbandonable(call);
    const atDeadline = (): never => {
      abandon();
      throw new HypervisorError(`${method} of host ${hostIdOf(target)} did not end within ${ms / 1000} s`);
    };
    return settleWithin<unknown>(ms, atDeadline, (settle) => {
      ended.then(
        (result) => {
          settle.resolve(result);
        },
        (error: unknown) => {
          settle.reject(error as Error);
        },
      );
      return () => undefined;
    });
  });
}
