import { refused } from './errors.ts';
import type { AdmissionRules, MemoryDemand } from './model/node-memory.ts';
import type { Records } from './ports/store.ts';

/** What a host with so much guest memory is reckoned to take of the machine's. */
export function expectedMib(rules: AdmissionRules, guestMib: number): number {
  return Math.ceil(guestMib / rules.overcommit);
}

/** Why the machine can't hold it, in words; undefined where it can. Measured use counts, and what has been promised. */
export async function memoryShortage(
  records: Pick<Records, 'nodeMemory' | 'usage'>,
  rules: AdmissionRules,
  { promisedMib = 0, isInUse = false, wokenMib = 0 }: MemoryDemand,
): Promise<string | undefined> {
  const recordedMib = isInUse ? 0 : promisedMib;
  const wantedMib = recordedMib + wokenMib;
  const memory = promisedMib + wokenMib > 0 ? await records.nodeMemory() : undefined;
  if (memory === undefined) return undefined;
  const { reserveMib, overcommit } = rules;
  const needed = expectedMib(rules, wantedMib);
  const coming = expectedMib(rules, Math.max(0, memory.comingMib - recordedMib));
  const free = memory.availableMib - reserveMib - coming;
  if (wantedMib > 0 && free < needed) {
    const beside = coming > 0 ? ` and ${coming} MiB for hosts that are just coming up` : '';
    return `${Math.max(0, Math.floor(free))} MiB of its memory are free beyond the reserve of ${reserveMib} MiB${beside}, and a host of this size is reckoned to take ${needed} MiB. Try again later, or ask the operator for more room.`;
  }
  if (promisedMib === 0) return undefined;
  const promised = (await records.usage(['total'])).get('total')?.memoryMib ?? 0;
  const limit = Math.floor((memory.totalMib - reserveMib) * overcommit);
  if (promised > limit) {
    return `${promised - promisedMib} MiB of guest memory are promised to hosts, this needs ${promisedMib} MiB more, and ${limit} MiB are the most (BERTH_MEMORY_OVERCOMMIT ${overcommit} times the memory beyond the reserve). Delete instances, or ask the operator for more room.`;
  }
  return undefined;
}

/**
 * Refuses what the machine can't hold: no tenant's host is ended to make room. Whoever has recorded a host, or what
 * it adds to one, holds the counts of everybody's use until the commit, so that two can't both take the last room.
 * @throws RefusedError (503), since it may fit later.
 */
export async function requireMemory(
  records: Records,
  rules: AdmissionRules,
  demand: MemoryDemand,
): Promise<void> {
  const why = await memoryShortage(records, rules, demand);
  if (why !== undefined) throw refused.unavailable(`The machine is full: ${why}`);
}
