import type { Plan } from '../core/catalog/catalog.ts';
import { diskRoom } from '../core/disk-admission.ts';
import { expectedMib } from '../core/memory-admission.ts';
import type { AdmissionRules } from '../core/model/node-memory.ts';
import type { Records } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';

/** `short`: the pool shrinks. `plenty`: it may grow. With `enough` in between, it does not do both in turn. */
type Room = 'short' | 'enough' | 'plenty';

/** The pool grows only if this much more is free than the limit at which it shrinks. */
const marginMib = 256;
const marginSlots = 2;
const marginDisk = 1.25;

/**
 * Judges whether the pool leaves enough of memory, slots and disk to creates of any plan, so that it never causes a refusal.
 * Logs a shortage when it begins and when it ends.
 * @param deps.availableMib the node's available memory.
 */
export function createPoolRoom(deps: {
  readonly records: Pick<Records, 'freeSlots' | 'nodeDisk' | 'usage'>;
  readonly logger: Logger;
  readonly plans: readonly Plan[];
  readonly availableMib: () => Promise<number>;
  readonly admission: AdmissionRules;
  readonly diskAdmission: AdmissionRules;
}): () => Promise<Room> {
  const { records, logger, plans, availableMib, admission, diskAdmission } = deps;
  const freeForCreatesMib =
    admission.reserveMib + Math.max(0, ...plans.map(({ shape }) => expectedMib(admission, shape.memoryMib)));
  const largestDiskGib = Math.max(0, ...plans.map(({ shape }) => shape.diskGib));
  const short = new Set<string>();

  function judge(what: 'Memory' | 'Disk space', room: Room, facts: object): Room {
    if ((room === 'short') !== short.has(what)) {
      if (room === 'short') short.add(what);
      else short.delete(what);
      logger.warn(
        facts,
        room === 'short'
          ? `${what} is short; the pool shrinks`
          : `${what} is no longer short; the pool may grow`,
      );
    }
    return room;
  }

  async function memory(): Promise<Room> {
    const available = await availableMib();
    const facts = { availableMib: Math.floor(available), freeForCreatesMib };
    if (available < freeForCreatesMib) return judge('Memory', 'short', facts);
    return judge('Memory', available < freeForCreatesMib + marginMib ? 'enough' : 'plenty', facts);
  }

  async function disk(): Promise<Room> {
    const room = await diskRoom(records, diskAdmission);
    const { availableMib, promisedGib, limitGib } = room ?? {};
    if (availableMib === undefined || promisedGib === undefined || limitGib === undefined) return 'plenty';
    const left = limitGib - promisedGib;
    const { reserveMib } = diskAdmission;
    const facts = { availableMib, reserveMib, promisedGib, limitGib };
    if (availableMib < reserveMib || left < largestDiskGib) return judge('Disk space', 'short', facts);
    const isScarce = availableMib < marginDisk * reserveMib || left < 2 * largestDiskGib;
    return judge('Disk space', isScarce ? 'enough' : 'plenty', facts);
  }

  async function slots(): Promise<Room> {
    const free = await records.freeSlots();
    if (free === 0) return 'short';
    return free <= marginSlots ? 'enough' : 'plenty';
  }

  return async () => {
    const rooms = [await memory(), await slots(), await disk()];
    return (['short', 'enough'] as const).find((room) => rooms.includes(room)) ?? 'plenty';
  };
}
