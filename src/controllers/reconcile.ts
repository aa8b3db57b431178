import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { Host } from '../core/model/host.ts';
import type {
  DifferenceKind,
  DifferenceRecords,
  OwnerNotes,
  RecordedDifference,
} from '../core/ports/host-differences.ts';
import type { Store } from '../core/ports/store.ts';
import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';
import { differenceOf, removableOrphan } from './differences.ts';
import { createHostTasks } from './host-tasks.ts';
import { findDifferences } from './record-differences.ts';
import { recordMemoryLosses } from './record-memory-losses.ts';
import { restartHost, unreachable, vmHasEnded } from './restart-host.ts';

/** Compares the recorded hosts with those that exist. */
export interface Reconciler {
  /**
   * Restarts hosts whose VM has ended, from their own disk; records what else differs; destroys what operators have
   * decided to remove, and at most one orphan that has never had an owner or is recorded as destroyed.
   */
  runOnce(): Promise<void>;
}

/** @param deps.graceSeconds after which an orphan that no tenant has used is destroyed. */
export function createReconciler(deps: {
  store: Store;
  hypervisor: Hypervisor;
  differences: DifferenceRecords;
  notes: OwnerNotes;
  graceSeconds: number;
  logger: Logger;
}): Reconciler {
  const { store, hypervisor, differences, notes, graceSeconds, logger } = deps;
  /** What differed in the last round: host and kind. */
  let former: ReadonlyMap<string, DifferenceKind> = new Map();
  const removals = createHostTasks({
    failed: 'A host that differs from its record could not be destroyed; retrying',
    logger,
  });
  /** When each orphan was last tried, so that the next one has its turn first. */
  const orphanTurns = new Map<string, number>();
  let turn = 0;
  const turnOf = ({ hostId }: { readonly hostId: string }) => orphanTurns.get(hostId) ?? 0;

  /** Restarts hosts that should run. @returns those of which nothing exists any more. */
  async function restartHosts(observed: readonly ObservedHost[], hosts: readonly Host[]): Promise<Host[]> {
    const lost: Host[] = [];
    const before = hostsIn(observed, healthyStates);
    // Hosts in quarantine stay as they are, for the operator to examine.
    const expected = hosts.filter(({ state, quarantined }) => state === 'running' && !quarantined);
    const ended = expected.filter(({ id }) => !before.has(id));
    if (ended.length > 0) {
      // It may have started after the hosts were listed and before its row was read.
      const now = await hypervisor.list();
      const healthy = hostsIn(now, healthyStates);
      const existing = new Set(now.map(({ hostId }) => hostId));
      for (const host of ended) {
        if (healthy.has(host.id)) continue;
        if (existing.has(host.id)) await restartHost(deps, host, vmHasEnded);
        else if (await shouldExist(host)) lost.push(host);
      }
    }
    // Left by a failed operation, or adopted.
    const unconnected = expected.filter(({ engine }) => engine === undefined);
    for (const host of unconnected.filter(({ id }) => before.has(id))) {
      await restartHost(deps, host, unreachable);
    }
    return lost;
  }

  /** Not while an operation makes or destroys it. */
  async function shouldExist({ id, instanceId }: Host): Promise<boolean> {
    const { records } = store;
    if ((await records.unfinishedOperation(instanceId)) !== undefined) return false;
    const [instance, host] = [await records.instanceById(instanceId), await records.livingHost(id)];
    return instance?.state === 'ready' && host?.state === 'running';
  }

  async function destroy(hostId: string, why: string): Promise<void> {
    logger.warn({ host: hostId, why }, 'Destroying a host that differs from its record');
    await hypervisor.withHostLock(hostId, async () => {
      // Read again under the lock: an operator may have adopted it meanwhile.
      const [observed] = (await hypervisor.list()).filter((one) => one.hostId === hostId);
      const known = (await differences.knownHosts([hostId])).get(hostId);
      const kind = observed && differenceOf(observed, known);
      if (observed !== undefined && kind === undefined) return;
      if (observed !== undefined) await hypervisor.destroy(hostId);
      // A row without anything behind it: a missing host, or one of the pool that is another instance's.
      const isEmptyRow = observed === undefined || known?.instanceId === undefined;
      if (known !== undefined && known.state !== 'destroyed' && isEmptyRow) {
        await store.records.setHostDestroyed(hostId);
      }
    });
  }

  /** Destroys what may be destroyed in this round; a host that can't be destroyed keeps no other one waiting. */
  async function removeSome(recorded: readonly RecordedDifference[], seenBefore: ReadonlySet<string>) {
    const reasons = new Map<string, string>();
    for (const { hostId, removalRequested } of recorded) {
      if (removalRequested) reasons.set(hostId, 'an operator has requested its removal');
    }
    for (const hostId of orphanTurns.keys()) {
      if (!seenBefore.has(hostId)) orphanTurns.delete(hostId);
    }
    const inTurn = recorded.toSorted((a, b) => turnOf(a) - turnOf(b));
    const orphan = removableOrphan(inTurn, seenBefore, graceSeconds);
    if (orphan !== undefined) {
      reasons.set(orphan.hostId, `it is ${orphan.kind}`);
      turn += 1;
      orphanTurns.set(orphan.hostId, turn);
    }
    await removals.run([...reasons.keys()], async (hostId) => {
      try {
        await destroy(hostId, reasons.get(hostId) ?? '');
      } catch (error) {
        await differences.recordFailure(hostId, errorMessage(error));
        throw error;
      }
    });
  }

  return {
    async runOnce() {
      // First: a host is made before its note.
      const noted = await notes.hostIds();
      // In this order: a host is recorded before it is made, so one that was listed but is not recorded is an orphan.
      const observed = await hypervisor.list();
      const hosts = await store.records.livingHosts();
      await recordMemoryLosses(store.records, observed, hosts);
      const found = await findDifferences(deps, observed);
      for (const { id, slot, instanceId } of await restartHosts(observed, hosts)) {
        found.push({ hostId: id, kind: 'missing', slot, owner: instanceId, note: undefined });
      }
      for (const { hostId, kind, slot, owner } of found) {
        // What exists only for the moment of a delete is found once.
        if (former.get(hostId) === kind) continue;
        logger.warn(
          { host: hostId, difference: kind, slot, owner },
          'A host differs from its record in Postgres; "berth reconcile" says what to do',
        );
      }
      const recorded = await differences.replace(found);
      const seenBefore = new Set(former.keys());
      former = new Map(found.map(({ hostId, kind }) => [hostId, kind]));

      await removeSome(recorded, seenBefore);
      const alive = new Set([...observed.map(({ hostId }) => hostId), ...hosts.map(({ id }) => id)]);
      for (const hostId of noted) if (!alive.has(hostId)) await notes.delete(hostId);
    },
  };
}

/** A paused or suspended host is healthy: it is woken on demand. An unreadable one can't be restarted. */
const healthyStates = ['running', 'paused', 'suspended', 'unreadable'] as const;

function hostsIn(
  observed: readonly ObservedHost[],
  states: readonly ObservedHost['state'][],
): ReadonlySet<string> {
  return new Set(observed.filter(({ state }) => states.includes(state)).map(({ hostId }) => hostId));
}
