import type { HostMethod } from '../../src/hypervisors/host-methods.ts';
import type { Faults } from '../../src/hypervisors/with-faults.ts';
import { eventually } from './eventually.ts';

/** Blocks methods of the simulated hypervisor, or makes them fail, so that a test can look at an operation in progress. */
export function createFaultControl() {
  const blocked = new Map<HostMethod, { unblocked: Promise<void>; unblock: () => void }>();
  const reached = new Set<HostMethod>();
  /** Number of times that each act still fails. */
  const failures = new Map<HostMethod, number>();

  const hypervisorFaults: Faults = {
    async before(act) {
      const block = blocked.get(act);
      if (block !== undefined) {
        reached.add(act);
        await block.unblocked;
      }
      const left = failures.get(act) ?? 0;
      if (left === 0) return;
      failures.set(act, left - 1);
      throw new Error(`${act} is broken on purpose`);
    },
  };
  return {
    /** The `faults` option of the simulated hypervisor. */
    hypervisorFaults,
    /** From now on `act` waits, for every host. */
    block(act: HostMethod) {
      let unblock: () => void = () => undefined;
      const unblocked = new Promise<void>((resolve) => (unblock = resolve));
      blocked.set(act, { unblocked, unblock });
    },
    /** Resolves when an operation waits in the blocked act. */
    reached: (act: HostMethod) => eventually(`${act} is reached`, () => reached.has(act)),
    /** @param act all of them if omitted. */
    unblock(act?: HostMethod) {
      for (const one of act === undefined ? [...blocked.keys()] : [act]) {
        blocked.get(one)?.unblock();
        blocked.delete(one);
        reached.delete(one);
      }
    },
    /** Makes the next `times` calls of `act` fail, for any host. */
    fail(act: HostMethod, times: number) {
      failures.set(act, times);
    },
  };
}
