import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Store } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';
import { createHostTasks } from './host-tasks.ts';

/**
 * Connects all running hosts again when a worker starts: firewall rules may have been lost while none ran.
 * @returns the number of hosts connected.
 */
export async function adopt(deps: { store: Store; hypervisor: Hypervisor; logger: Logger }): Promise<number> {
  const { store, hypervisor, logger } = deps;
  const running = new Set(
    (await hypervisor.list())
      .filter(({ state }) => state === 'running' || state === 'paused')
      .map(({ hostId }) => hostId),
  );
  let adopted = 0;
  const instances = new Map(
    (await store.records.livingHosts()).map(({ id, instanceId }) => [id, instanceId]),
  );
  const tasks = createHostTasks({
    failed: 'A running host could not be connected; restart the worker to retry',
    logger,
  });
  await tasks.run(
    [...instances.keys()].filter((id) => running.has(id)),
    (id) =>
      hypervisor.withHostLock(id, async () => {
        // Read again under the lock: another worker may have destroyed it, and its slot may belong to another host.
        const host = await store.records.hostOfInstance(instances.get(id) ?? '');
        // Its operation connects a host that is still being created: it may have no identity yet.
        if (host?.id !== id || host.state !== 'running' || host.engine === undefined) return;
        await hypervisor.connect(toHostSpec(host));
        adopted += 1;
      }),
  );
  return adopted;
}
