import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Store } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';

/**
 * Records the owners of hosts that a former version of Berth has started: their own records name none. Runs when a
 * worker starts, before anything else is done with hosts.
 */
export async function recordOwners(deps: {
  store: Store;
  hypervisor: Hypervisor;
  logger: Logger;
}): Promise<void> {
  const { store, hypervisor, logger } = deps;
  const unowned = new Set(
    (await hypervisor.list())
      .filter(({ owner, parked, state }) => owner === undefined && !parked && state !== 'unreadable')
      .map(({ hostId }) => hostId),
  );
  for (const { id } of await store.records.livingHosts()) {
    if (!unowned.has(id)) continue;
    try {
      await hypervisor.withHostLock(id, async () => {
        // A host that is still being created may be one that its row has taken from somebody.
        const host = await store.records.livingHost(id);
        if (host?.state === 'running') await hypervisor.recordOwner(toHostSpec(host));
      });
    } catch (error) {
      logger.error(
        { host: id, err: error },
        "A host's owner could not be recorded; restart the worker to retry",
      );
    }
  }
}
