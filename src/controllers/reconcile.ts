import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Host } from '../core/model/host.ts';
import type { Instance } from '../core/model/instance.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import { beginOperation } from '../core/broker/begin-operation.ts';
import type { Store } from '../core/ports/store.ts';

/** How long a host may take to come back before its restart is given up and begun anew, in milliseconds. */
const restartDeadlineMs = 20 * 60 * 1000;

/**
 * Holds what is on record against what exists: a host whose machine has gone is brought back from its own
 * disk, and a host that nobody knows of is destroyed (design: promise 2).
 */
export async function reconcile(parts: {
  store: Store;
  hypervisor: Hypervisor;
  logger: Logger;
}): Promise<void> {
  const { store, hypervisor, logger } = parts;
  // In this order: a host is on record before it is made, so whatever is seen and not on record is an orphan.
  const seen = await hypervisor.list();
  const pooled = await store.records.pooledHosts();
  // Read after the pool: a host that is claimed in between is in both, and in neither of them never.
  const hosts = await store.records.livingHosts();

  const known = new Set([...pooled, ...hosts].map(({ id }) => id));
  for (const orphan of seen.filter(({ hostId }) => !known.has(hostId))) {
    logger.warn({ host: orphan.hostId }, 'A host that is not on record was found, and is destroyed');
    await hypervisor.destroy(orphan.hostId);
  }

  const before = among(seen, wellStates);
  // What is in quarantine stays as it is, for whoever looks into it.
  const expected = hosts.filter(({ state, quarantined }) => state === 'running' && !quarantined);
  const missed = expected.filter(({ id }) => !before.has(id));
  if (missed.length > 0) {
    // It may have begun to run after we looked and before we read that it does.
    const now = among(await hypervisor.list(), wellStates);
    for (const host of missed) {
      if (!now.has(host.id)) await restartHost(store, host, 'its machine has gone', logger);
    }
  }
  // What an operation has left that could not bring it back.
  for (const host of expected.filter(({ engine }) => engine === undefined)) {
    await restartHost(store, host, unreachable, logger);
  }
}

/** One that sleeps is as well as one that runs: it is woken when somebody comes. */
const wellStates = ['running', 'paused', 'suspended'] as const;

function among(seen: readonly ObservedHost[], states: readonly ObservedHost['state'][]): ReadonlySet<string> {
  return new Set(seen.filter(({ state }) => states.includes(state)).map(({ hostId }) => hostId));
}

const unreachable = 'nothing leads to it';

/** What is being destroyed stays down, also where that has failed half-way: its disk may be half wiped. */
function isKept({ state, expiresAt }: Instance): boolean {
  return state === 'ready' && (expiresAt === undefined || expiresAt.getTime() > Date.now());
}

async function restartHost(store: Store, host: Host, why: string, logger: Logger): Promise<void> {
  const begun = await store.transaction(async (records) => {
    // Held until the commit, so that a request which begins an operation now finds this one, or this one that.
    const instance = await records.instanceById(host.instanceId, 'lock');
    if (instance === undefined || !isKept(instance)) return false;
    if ((await records.unfinishedOperation(host.instanceId)) !== undefined) return false;
    const current = await records.hostOfInstance(host.instanceId);
    if (current?.id !== host.id || current.state !== 'running') return false;
    // It may have come back since it was read.
    if (why === unreachable && current.engine !== undefined) return false;
    await records.setHostUnreachable(host.id);
    await beginOperation(records, 'restart', host.instanceId, { withinMs: restartDeadlineMs });
    return true;
  });
  if (begun) logger.warn({ host: host.id, why }, 'A host is brought back');
}

/** Opens again the ways to all hosts that run, after a worker has been away and firewall rules may have gone. */
export async function adopt(parts: {
  store: Store;
  hypervisor: Hypervisor;
  logger: Logger;
}): Promise<number> {
  const { store, hypervisor, logger } = parts;
  const running = among(await hypervisor.list(), ['running', 'paused']);
  let adopted = 0;
  for (const { id, instanceId } of await store.records.livingHosts()) {
    if (!running.has(id)) continue;
    try {
      const isAdopted = await hypervisor.withHostLock(id, async () => {
        // As it is now that nobody else acts on it: another worker may just have destroyed it, and its slot may
        // be another host's.
        const host = await store.records.hostOfInstance(instanceId);
        // A host that is still being made is the business of its operation: it may have no identity yet.
        if (host?.id !== id || host.state !== 'running' || host.engine === undefined) return false;
        await hypervisor.connect(toHostSpec(host));
        return true;
      });
      if (isAdopted) adopted += 1;
    } catch (error) {
      logger.error({ host: id, err: error }, 'A running host could not be adopted');
    }
  }
  return adopted;
}
