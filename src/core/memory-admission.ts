import { refused } from './errors.ts';
import type { AdmissionRules, MemoryDemand } from './model/node-memory.ts';
import type { Records } from './ports/store.ts';

/** How much of the node's memory a host with this much guest memory is expected to use, in MiB. */
export function expectedMib(rules: AdmissionRules, guestMib: number): number {
  return Math.ceil(guestMib / rules.overcommit);
}

/** The reason why the node lacks the memory, or undefined if it fits. Measured use counts, and promised memory. */
export async function memoryShortage(
  records: Pick<Records, 'nodeMemory' | 'usage'>,
  rules: AdmissionRules,
  { promisedMib = 0, inUseMib = 0, wokenMib = 0 }: MemoryDemand,
): Promise<string | undefined> {
  const wantedMib = promisedMib - inUseMib + wokenMib;
  const memory = promisedMib + wokenMib > 0 ? await records.nodeMemory() : undefined;
  if (memory === undefined) return undefined;
  const { reserveMib, overcommit } = rules;
  const needed = expectedMib(rules, wantedMib);
  const coming = expectedMib(rules, Math.max(0, memory.comingMib - promisedMib));
  const free = memory.availableMib - reserveMib - coming;
  if (wantedMib > 0 && free < needed) {
    const besides = coming > 0 ? ` and ${coming} MiB for hosts that are starting` : '';
    return `${Math.max(0, Math.floor(free))} MiB of its memory are free beyond the reserve of ${reserveMib} MiB${besides}, and a host of this size is expected to take ${needed} MiB. Try again later, or ask the operator for more memory.`;
  }
  if (promisedMib === 0) return undefined;
  const promised = (await records.usage(['total'])).get('total')?.memoryMib ?? 0;
  const limit = Math.floor((memory.totalMib - reserveMib) * overcommit);
  if (promised > limit) {
    return `${promised - promisedMib} MiB of guest memory are promised to hosts, this needs ${promisedMib} MiB more, and the limit is ${limit} MiB (BERTH_MEMORY_OVERCOMMIT ${overcommit} times the memory beyond the reserve). Delete instances, or ask the operator for more memory.`;
  }
  return undefined;
}

/**
 * Refuses what doesn't fit into the node's memory: no tenant's host is ended to make room. Recording a host, or an
 * addition to one, locks the usage counts until the commit, so two requests can't both take the last memory.
 * @throws RefusedError (503), because it may fit later.
 */
export async function requireMemory(
  records: Records,
  rules: AdmissionRules,
  demand: MemoryDemand,
): Promise<void> {
  const reason = await memoryShortage(records, rules, demand);
  if (reason !== undefined) throw refused.unavailable(`The node is out of memory: ${reason}`);
}
