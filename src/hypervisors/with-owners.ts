import { HostDisputedError } from '../core/hypervisor/host-disputed-error.ts';
import type { HostSpec } from '../core/hypervisor/host-spec.ts';
import type { Driver } from '../core/hypervisor/hypervisor.ts';
import { decorateHostMethods, type HostMethod } from './host-methods.ts';

/** What a host's own record says about its owner. */
export interface Ownership {
  readonly owner: string | undefined;
  readonly slot: number;
  /** Whether its guest has ever run, other than to be parked. */
  readonly hasRun: boolean;
}

/** The hosts' own records of their owners. */
export interface OwnerRecords {
  /** Undefined if there is no record of the host. @throws HostDisputedError if its record can't be read. */
  read(hostId: string): Promise<Ownership | undefined>;
  /** Every host that exists, also an unreadable one. */
  hostIds(): Promise<readonly string[]>;
  /** The slot of a host whose record can't be read, by what else there is of it. */
  slotByDisk(hostId: string): Promise<number | undefined>;
}

/** Methods that are refused for a host that has run although its record names no owner. */
const refusedWithoutOwner: ReadonlySet<HostMethod> = new Set(['prepare', 'start', 'destroy']);

/**
 * The driver, which refuses every act on a host whose spec names another owner than the host's own record: Postgres may
 * have lost the transaction that assigned the host (a failover to a replica, a restored backup). An act with an id
 * instead of a spec is not checked. Goes inside {@link withHostLocks}, so that the record does not change meanwhile.
 */
export function withOwners(driver: Driver, records: OwnerRecords): Driver {
  /** Slots by host, which never change: a prepare reads the records of the hosts that it does not know yet. */
  const known = new Map<string, number>();

  async function slotOf(hostId: string): Promise<number | undefined> {
    const slot =
      known.get(hostId) ??
      (await records.read(hostId).then(
        (found) => found?.slot,
        () => records.slotByDisk(hostId),
      ));
    if (slot !== undefined) known.set(hostId, slot);
    return slot;
  }

  /** A host that Postgres has forgotten may use it. */
  async function requireFreeSlot({ hostId, slot }: HostSpec): Promise<void> {
    const existing = new Set(await records.hostIds());
    for (const id of known.keys()) if (!existing.has(id)) known.delete(id);
    const others = [...existing].filter((id) => id !== hostId);
    const slots = await Promise.all(others.map(slotOf));
    const other = others[slots.indexOf(slot)];
    if (other === undefined) return;
    throw new HostDisputedError(`slot ${slot} of host ${hostId} is used by host ${other} already`);
  }

  async function requireOwner(method: HostMethod, spec: HostSpec): Promise<void> {
    const { hostId } = spec;
    const found = await records.read(hostId);
    if (found === undefined) {
      if (method === 'prepare') await requireFreeSlot(spec);
      return;
    }
    if (found.slot !== spec.slot) {
      throw new HostDisputedError(`host ${hostId} has slot ${found.slot} on record, not ${spec.slot}`);
    }
    if (found.owner !== undefined && found.owner !== spec.owner) {
      throw new HostDisputedError(
        `host ${hostId} belongs to instance ${found.owner}, not to ${spec.owner ?? 'the pool'}`,
      );
    }
    // It has run for a tenant of a former version of Berth, which recorded no owner.
    const isUnclaimable = found.owner === undefined && found.hasRun && refusedWithoutOwner.has(method);
    if (isUnclaimable && (spec.owner !== undefined || method === 'destroy')) {
      throw new HostDisputedError(`host ${hostId} has run for an instance that its record does not name`);
    }
  }

  return decorateHostMethods(driver, ['act'], async (method, target, call) => {
    if (typeof target !== 'string') await requireOwner(method, target);
    return call();
  });
}
