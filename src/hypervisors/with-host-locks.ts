import type { Driver, Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { HostLocks } from './host-locks.ts';
import { decorateHostMethods, hostIdOf } from './host-methods.ts';

/**
 * The driver, with each act on a host run under the host's lock: no other act on that host runs meanwhile, in this
 * process or another. Acts within {@link Hypervisor.withHostLock} belong to it.
 */
export function withHostLocks(driver: Driver, locks: HostLocks): Hypervisor {
  return {
    ...decorateHostMethods(driver, ['act'], (_method, target, call) =>
      locks.withLock(hostIdOf(target), call),
    ),
    withHostLock: locks.withLock,
  };
}
