import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { DifferenceRecords } from '../core/ports/host-differences.ts';
import type { Store } from '../core/ports/store.ts';
import { differenceOf } from './differences.ts';

/** The number of hosts that differ from their rows, the missing ones included; changes nothing. */
export async function countDifferences(deps: {
  store: Store;
  hypervisor: Pick<Hypervisor, 'list'>;
  differences: Pick<DifferenceRecords, 'knownHosts'>;
}): Promise<number> {
  const observed = await deps.hypervisor.list();
  const existing = new Set(observed.map(({ hostId }) => hostId));
  const known = await deps.differences.knownHosts([...existing]);
  const differing = observed.filter((host) => differenceOf(host, known.get(host.hostId)) !== undefined);
  const missing = (await deps.store.records.livingHosts()).filter(
    ({ id, state }) => state === 'running' && !existing.has(id),
  );
  return differing.length + missing.length;
}
