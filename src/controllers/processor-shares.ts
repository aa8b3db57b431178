import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Records } from '../core/ports/store.ts';

/** Gives each tenant the same share of processors for which several compete, whatever number of its hosts are busy. */
export interface ProcessorShares {
  runOnce(): Promise<void>;
}

/** A host that uses more than this share of one processor is busy. An idle guest uses a tenth of it. */
const busyShare = 0.05;
/** Hosts that belong to no tenant: those of the pool, and those that Postgres does not know. They share one part. */
const nobody = '';

/**
 * A host's weight is one part in as many as its tenant has busy hosts. A host that is not busy keeps its whole weight, so
 * that the first thing it does after a pause is quick.
 */
export function createProcessorShares(deps: {
  readonly records: Pick<Records, 'livingHosts'>;
  readonly hypervisor: Pick<Hypervisor, 'processorTimes' | 'setProcessorWeights'>;
  /** Milliseconds on a clock that never goes back. */
  readonly now?: () => number;
}): ProcessorShares {
  const { records, hypervisor, now = () => performance.now() } = deps;
  let last = { at: now(), times: new Map<string, number>() as ReadonlyMap<string, number> };
  let weights: ReadonlyMap<string, number> = new Map();

  /** Hosts that were busy since the run before. */
  async function busyHosts(): Promise<readonly string[]> {
    const before = last;
    last = { at: now(), times: await hypervisor.processorTimes() };
    const least = busyShare * (last.at - before.at);
    return [...last.times].filter(([id, ms]) => ms - (before.times.get(id) ?? 0) > least).map(([id]) => id);
  }

  async function weigh(busy: readonly string[]): Promise<ReadonlyMap<string, number>> {
    // One busy host has no rival: Postgres need not be asked.
    const rows = busy.length < 2 ? [] : await records.livingHosts();
    const tenants = new Map(rows.map(({ id, tenantId }) => [id, tenantId]));
    const tenantOf = (id: string) => tenants.get(id) ?? nobody;
    const counts = new Map<string, number>();
    for (const id of busy) counts.set(tenantOf(id), (counts.get(tenantOf(id)) ?? 0) + 1);
    const busyOnes = new Set(busy);
    return new Map(
      [...last.times.keys()].map((id) => [id, busyOnes.has(id) ? 1 / (counts.get(tenantOf(id)) ?? 1) : 1]),
    );
  }

  return {
    async runOnce() {
      const next = await weigh(await busyHosts());
      const changed = [...next].filter(([id, weight]) => weight !== (weights.get(id) ?? 1));
      if (changed.length > 0) await hypervisor.setProcessorWeights(new Map(changed));
      weights = next;
    },
  };
}
