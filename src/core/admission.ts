import { refused } from './errors.ts';
import type { Records } from './store.ts';

/** What an operator lets hosts take of the machine's memory. */
export interface AdmissionRules {
  /** What is left alone, in MiB. */
  readonly reserveMib: number;
  /**
   * How many times the memory beyond the reserve may be promised to hosts. Most of a host's memory is shared
   * with its template or never touched, so more than once is right; how much more is the operator's guess.
   */
  readonly overcommit: number;
}

/** A machine's memory as its worker has reported it last, in MiB. */
export interface MachineMemory {
  readonly totalMib: number;
  /** What it can still take without swapping. */
  readonly availableMib: number;
}

/**
 * Whether the machine can hold what has just been recorded in this transaction: no tenant's host is ended to
 * make room, so it is refused beforehand. Measured use counts, and what has been promised counts.
 * @param addedMib guest memory that this adds.
 * @throws RefusedError (503), since it may fit later.
 */
export async function requireRoom(records: Records, rules: AdmissionRules, addedMib: number): Promise<void> {
  const memory = addedMib > 0 ? await records.machineMemory() : undefined;
  if (memory === undefined) return;
  const { reserveMib, overcommit } = rules;
  const needed = Math.ceil(addedMib / overcommit);
  const free = memory.availableMib - reserveMib;
  if (free < needed) {
    throw refused.unavailable(
      `The machine is full: ${Math.max(0, Math.floor(free))} MiB of its memory are free beyond the reserve of ${reserveMib} MiB, and a host of this size is reckoned to take ${needed} MiB. Try again later, or ask the operator for more room.`,
    );
  }
  const promised = (await records.usage(['total'])).get('total')?.memoryMib ?? 0;
  const limit = Math.floor((memory.totalMib - reserveMib) * overcommit);
  if (promised > limit) {
    throw refused.unavailable(
      `The machine is full: ${promised - addedMib} MiB of guest memory are promised to hosts, this needs ${addedMib} MiB more, and ${limit} MiB are the most (BERTH_MEMORY_OVERCOMMIT ${overcommit} times the memory beyond the reserve). Delete instances, or ask the operator for more room.`,
    );
  }
}
