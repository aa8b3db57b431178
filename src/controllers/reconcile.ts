import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Store } from '../core/ports/store.ts';
import { restartHost, unreachable, vmHasEnded } from './restart-host.ts';

/**
 * Compares the recorded hosts with the VMs that exist: restarts hosts whose VM has ended, from their own disk, and
 * destroys VMs that are not recorded (orphans).
 */
export async function reconcile(deps: {
  store: Store;
  hypervisor: Hypervisor;
  logger: Logger;
}): Promise<void> {
  const { store, hypervisor, logger } = deps;
  // In this order: a host is recorded before its VM is made, so a VM that was listed but is not recorded is an orphan.
  const observed = await hypervisor.list();
  const poolHosts = await store.records.poolHosts();
  // Read after the pool: a host that is claimed in between is in both lists, never in neither.
  const hosts = await store.records.livingHosts();

  const known = new Set([...poolHosts, ...hosts].map(({ id }) => id));
  const orphans = observed.filter(({ hostId, state }) => !known.has(hostId) && state !== 'unreadable');
  for (const orphan of orphans) {
    logger.warn({ host: orphan.hostId }, 'Found a host that is not recorded; destroying it');
    await hypervisor.destroy(orphan.hostId);
  }

  const before = hostsIn(observed, healthyStates);
  // Hosts in quarantine stay as they are, for the operator to examine.
  const expected = hosts.filter(({ state, quarantined }) => state === 'running' && !quarantined);
  const missing = expected.filter(({ id }) => !before.has(id));
  if (missing.length > 0) {
    // It may have started after the hosts were listed and before its row was read.
    const now = hostsIn(await hypervisor.list(), healthyStates);
    for (const host of missing) {
      if (!now.has(host.id)) await restartHost(deps, host, vmHasEnded);
    }
  }
  // Left by a failed operation.
  for (const host of expected.filter(({ engine }) => engine === undefined)) {
    await restartHost(deps, host, unreachable);
  }
}

/** A paused or suspended host is healthy: it is woken on demand. An unreadable one can't be restarted. */
const healthyStates = ['running', 'paused', 'suspended', 'unreadable'] as const;

function hostsIn(
  observed: readonly ObservedHost[],
  states: readonly ObservedHost['state'][],
): ReadonlySet<string> {
  return new Set(observed.filter(({ state }) => states.includes(state)).map(({ hostId }) => hostId));
}
