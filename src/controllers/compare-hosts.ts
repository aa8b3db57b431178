import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Store } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';

/**
 * Compares the rows of hosts with their own records on the node, which win: Postgres may have lost its last
 * transactions. Also runs before a worker's first operation.
 */
export async function compareHosts(deps: {
  store: Store;
  hypervisor: Pick<Hypervisor, 'list'>;
  logger: Logger;
}): Promise<void> {
  const { hypervisor } = deps;
  // Listed before rows are read: a row that still says "in the pool" afterwards was not claimed when the host was seen.
  const disputed = await deps.store.records.disputedHosts();
  const observed = await hypervisor.list();
  await setPoolHostsAside(deps, observed);
  await freeDisputes(deps, disputed, observed);
}

/** Sets aside what the pool can't have: hosts that belong to an instance, or perhaps do. */
async function setPoolHostsAside(
  { store, logger }: { store: Store; logger: Logger },
  observed: readonly ObservedHost[],
): Promise<void> {
  const byId = new Map(observed.map((host) => [host.hostId, host]));
  for (const { id } of await store.records.poolHosts()) {
    const found = byId.get(id);
    if (found === undefined || (found.owner === undefined && found.state !== 'unreadable')) continue;
    const problem =
      found.owner === undefined
        ? 'its own record on the node is unreadable'
        : `it belongs to instance ${found.owner}`;
    if (!(await store.records.setHostAside({ id }, problem))) continue;
    logger.error(
      { host: id, why: problem },
      'A host was set aside that the database counted to the pool; it is left as it is until an operator decides',
    );
  }
}

/** Ends disputes about hosts that are gone, and frees their slots unless a host on the node uses them. */
async function freeDisputes(
  { store, logger }: { store: Store; logger: Logger },
  disputed: readonly { readonly id: string; readonly slot: number }[],
  observed: readonly ObservedHost[],
): Promise<void> {
  if (observed.some(({ slot, state }) => state === 'unreadable' && slot === undefined)) return;
  for (const { id, slot } of disputed) {
    if (observed.some((host) => host.hostId === id || host.slot === slot)) continue;
    await store.records.setHostDestroyed(id);
    logger.info({ host: id, slot }, 'A host that was set aside is gone; its slot was freed');
  }
}
