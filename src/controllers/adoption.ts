import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Store } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';
import { createHostTasks } from './host-tasks.ts';

/** Connects the hosts that ran before this worker: firewall rules may have been lost while none ran. */
export interface Adoption {
  /**
   * Connects the running hosts that are not connected yet.
   * @returns the number of hosts that were connected.
   */
  runOnce(): Promise<number>;
}

export function createAdoption(deps: { store: Store; hypervisor: Hypervisor; logger: Logger }): Adoption {
  const { store, hypervisor, logger } = deps;
  const tasks = createHostTasks({
    failed: 'A running host could not be connected; trying again after a pause that grows to 5 min',
    logger,
  });
  /** Hosts that are still to be connected; undefined before the first run. */
  let left: Set<string> | undefined;

  return {
    async runOnce() {
      if (left?.size === 0) return 0;
      const running = new Set(
        (await hypervisor.list())
          .filter(({ state }) => state === 'running' || state === 'paused')
          .map(({ hostId }) => hostId),
      );
      const living = new Map(
        (await store.records.livingHosts()).map(({ id, instanceId }) => [id, instanceId]),
      );
      // Whatever starts a host that has stopped connects it.
      const connecting = new Set(
        [...(left ?? living.keys())].filter((id) => running.has(id) && living.has(id)),
      );
      left = connecting;
      let connected = 0;
      await tasks.run([...connecting], (id) =>
        hypervisor.withHostLock(id, async () => {
          // Read again under the lock: another worker may have destroyed it, and its slot may belong to another host.
          const host = await store.records.hostOfInstance(living.get(id) ?? '');
          // Its operation connects a host that is still being created: it may have no identity yet.
          if (host?.id === id && host.state === 'running' && host.engine !== undefined) {
            await hypervisor.connect(toHostSpec(host));
            connected += 1;
          }
          // An act that hung may end in a later round.
          left?.delete(id);
        }),
      );
      return connected;
    },
  };
}
