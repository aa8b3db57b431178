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

/** The smallest weight that drivers have to know. */
const leastWeight = 0.01;

/**
 * A host's weight is one part in as many as its tenant has busy hosts. A host that is not busy keeps its whole weight, so
 * that the first thing it does after a pause is quick. Each run sets all weights: those of a worker that was killed, or of a VM
 * that has restarted, are not known.
 */
export function createProcessorShares(deps: {
  readonly records: Pick<Records, 'livingHosts'>;
  readonly hypervisor: Pick<Hypervisor, 'processorTimes' | 'setProcessorWeights'>;
  /** Milliseconds on a clock that never goes back. */
  readonly now?: () => number;
}): ProcessorShares {
  const { records, hypervisor, now = () => performance.now() } = deps;
  let last: { readonly at: number; readonly times: ReadonlyMap<string, number> } | undefined;

  /** Hosts by whether they were busy since the run before; none is in the first run. */
  async function measure(): Promise<{
    readonly busy: ReadonlySet<string>;
    readonly running: readonly string[];
  }> {
    const [before, current] = [last, { at: now(), times: await hypervisor.processorTimes() }];
    last = current;
    const running = [...current.times.keys()];
    if (before === undefined) return { busy: new Set(), running };
    const least = busyShare * (current.at - before.at);
    const used = (id: string) => (current.times.get(id) ?? 0) - (before.times.get(id) ?? 0);
    return { busy: new Set(running.filter((id) => used(id) > least)), running };
  }

  async function weigh(): Promise<ReadonlyMap<string, number>> {
    const { busy, running } = await measure();
    // One busy host has no rival: Postgres need not be asked.
    const rows = busy.size < 2 ? [] : await records.livingHosts();
    const tenants = new Map(rows.map(({ id, tenantId }) => [id, tenantId]));
    const tenantOf = (id: string) => tenants.get(id) ?? nobody;
    const counts = new Map<string, number>();
    for (const id of busy) counts.set(tenantOf(id), (counts.get(tenantOf(id)) ?? 0) + 1);
    const partOf = (id: string) => Math.max(leastWeight, 1 / (counts.get(tenantOf(id)) ?? 1));
    return new Map(running.map((id) => [id, busy.has(id) ? partOf(id) : 1]));
  }

  return {
    async runOnce() {
      await hypervisor.setProcessorWeights(await weigh());
    },
  };
}
