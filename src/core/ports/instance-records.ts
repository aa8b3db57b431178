import type { Instance, InstanceState } from '../model/instance.ts';
import type { UpdateTarget } from '../model/operation.ts';
import type { Tenant } from '../model/tenant.ts';
import type { JsonObject } from '../model/json.ts';

export interface NewInstance {
  readonly id: string;
  readonly platformId: string;
  readonly tenantId: string;
  readonly osbId: string;
  readonly serviceId: string;
  readonly planId: string;
  readonly parameters: JsonObject;
  readonly context: JsonObject;
  readonly expiresAt: Date | undefined;
}

/**
 * How a row is held until the transaction ends: `lock` for who changes it, `share` for who needs it to stay
 * as it is while others may do the same.
 */
export type RowLock = 'lock' | 'share';

/** Tenants and instances. */
export interface InstanceRecords {
  /** The tenant of this key, recorded where it is new. */
  findOrCreateTenant(platformId: string, key: string): Promise<Tenant>;
  /** The instance with the platform's id, deleted ones included. */
  instance(platformId: string, osbId: string, lock?: RowLock): Promise<Instance | undefined>;
  /** The instance with this id of its row. */
  instanceById(id: string, lock?: RowLock): Promise<Instance | undefined>;
  /** The caller holds its id, and has found no instance of it. */
  insertInstance(instance: NewInstance): Promise<void>;
  setInstanceState(id: string, state: InstanceState): Promise<void>;
  setInstanceContext(id: string, context: JsonObject): Promise<void>;
  /** Writes what an update has come to: plan, parameters and term. */
  setInstanceTarget(id: string, target: UpdateTarget): Promise<void>;
  /**
   * Ids of instances whose deletion failed so long ago, in milliseconds, and of which a host is left; at most 100 at a
   * time.
   */
  instancesWithFailedDelete(sinceMs: number): Promise<readonly string[]>;
  /** Ids of instances that are ready and whose term is over; at most 100 at a time. */
  instancesDueToExpire(): Promise<readonly string[]>;
  /**
   * Keeps all others off this id until the transaction ends, also while there is no row of it: a DELETE that comes
   * in the middle of its PUT must find it.
   */
  lockInstanceId(platformId: string, osbId: string): Promise<void>;
  /** Remembers for an hour that this id was deleted before it was ever seen (docs/osb.md 40). */
  recordEarlyDelete(platformId: string, osbId: string): Promise<void>;
  wasDeletedEarly(platformId: string, osbId: string): Promise<boolean>;
}
