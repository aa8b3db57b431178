import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { DifferenceRecords, FoundDifference, OwnerNotes } from '../core/ports/host-differences.ts';
import type { Store } from '../core/ports/store.ts';
import { differenceOf } from './differences.ts';

/** How these hosts, which exist, differ from their rows. */
export async function findDifferences(
  {
    differences,
    notes,
  }: { differences: Pick<DifferenceRecords, 'knownHosts'>; notes: Pick<OwnerNotes, 'read'> },
  observed: readonly ObservedHost[],
): Promise<FoundDifference[]> {
  const known = await differences.knownHosts(observed.map(({ hostId }) => hostId));
  const found: FoundDifference[] = [];
  for (const host of observed) {
    const kind = differenceOf(host, known.get(host.hostId));
    if (kind === undefined) continue;
    const { hostId, slot, owner } = host;
    found.push({ hostId, kind, slot, owner, note: await notes.read(hostId) });
  }
  return found;
}

/**
 * Records the hosts that differ from their rows before anything uses a database that has lost transactions: otherwise a new host
 * could get the slot of one that Postgres has forgotten, which could not be adopted any more.
 * @returns the number of hosts that differ, the missing ones included.
 */
export async function recordDifferences(deps: {
  store: Store;
  hypervisor: Pick<Hypervisor, 'list'>;
  differences: Pick<DifferenceRecords, 'knownHosts' | 'replace'>;
  notes: Pick<OwnerNotes, 'read'>;
}): Promise<number> {
  const observed = await deps.hypervisor.list();
  const existing = new Set(observed.map(({ hostId }) => hostId));
  const found = await findDifferences(deps, observed);
  const missing = (await deps.store.records.livingHosts()).filter(
    ({ id, state }) => state === 'running' && !existing.has(id),
  );
  await deps.differences.replace(found);
  return found.length + missing.length;
}
