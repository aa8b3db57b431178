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
 * How a row is locked until the transaction ends: `lock` to change it; `share` to prevent changes while others may
 * share it.
 */
export type RowLock = 'lock' | 'share';

/** Tenants and instances. */
export interface InstanceRecords {
  /** The tenant with this key; recorded if it is new. */
  findOrCreateTenant(platformId: string, key: string): Promise<Tenant>;
  /** The instance that the platform's id means, a deleted one included. */
  instance(platformId: string, osbId: string, lock?: RowLock): Promise<Instance | undefined>;
  /** The org that the latest instance of this space was created for; undefined if there was none. Deleted ones count. */
  orgOfSpace(platformId: string, spaceGuid: string): Promise<string | undefined>;
  /** The instance with this row id. */
  instanceById(id: string, lock?: RowLock): Promise<Instance | undefined>;
  /** The caller has locked the id (`lockInstanceId`) and found no instance with it. */
  insertInstance(instance: NewInstance): Promise<void>;
  /** Lets the id of an instance that was deleted at least `restMs` milliseconds ago be used again; false if it may not be yet. */
  releaseInstanceId(id: string, restMs: number): Promise<boolean>;
  setInstanceState(id: string, state: InstanceState): Promise<void>;
  setInstanceContext(id: string, context: JsonObject): Promise<void>;
  /** Records the result of an update: plan, parameters and expiry. */
  setInstanceTarget(id: string, target: UpdateTarget): Promise<void>;
  /**
   * Ids of instances whose deletion failed at least `sinceMs` milliseconds ago and whose host still exists; at most
   * 100 at a time.
   */
  instancesWithFailedDelete(sinceMs: number): Promise<readonly string[]>;
  /** Ids of ready instances whose expiry has passed; at most 100 at a time. */
  instancesDueToExpire(): Promise<readonly string[]>;
  /**
   * Locks an id until the transaction ends, even if it has no row: a DELETE that arrives during the PUT must find the
   * instance.
   */
  lockInstanceId(platformId: string, osbId: string): Promise<void>;
  /** Remembers for an hour that this id was deleted before its creation arrived (docs/osb.md 40). */
  recordEarlyDelete(platformId: string, osbId: string): Promise<void>;
  wasDeletedEarly(platformId: string, osbId: string): Promise<boolean>;
}
