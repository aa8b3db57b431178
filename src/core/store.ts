import type { BindingAuthorities } from './credentials.ts';
import type { MachineMemory } from './admission.ts';
import type { Egress, EngineAddress, HostShape, RegistrySettings, StartedFrom } from './hypervisor.ts';
import type {
  Binding,
  BindingRequest,
  Host,
  HostPower,
  IdlePolicy,
  Instance,
  InstanceState,
  JsonObject,
  LeasedOperation,
  Operation,
  OperationKind,
  PooledHost,
  PowerRequest,
  ReportedOperation,
  Tenant,
  UpdateTarget,
} from './model.ts';
import type { Usage } from './quotas.ts';

/** The port to Postgres. One object, so that what belongs together is written in one transaction. */
export interface Store {
  /** Reads and single writes, each in a transaction of its own. */
  readonly records: Records;
  /**
   * Runs `work` in one transaction. It must not wait for anything but the database. Wake-ups that it asks
   * for are sent when it commits. Where Postgres has undone it in favour of another transaction it is run again.
   * An instance is locked before what belongs to it: its operation, its host, its bindings.
   */
  transaction<T>(work: (records: Records) => Promise<T>): Promise<T>;
}

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

export interface NewPooledHost {
  readonly id: string;
  readonly planName: string;
  readonly shape: HostShape;
  readonly publishedPorts: number;
  readonly egress: Egress;
}

export interface NewHost extends NewPooledHost {
  readonly instanceId: string;
  readonly tenantId: string;
  readonly registries: RegistrySettings;
  readonly idle: IdlePolicy;
}

export interface NewBinding {
  readonly id: string;
  readonly osbId: string;
  readonly instanceId: string;
  readonly tenantId: string;
  readonly serial: string;
  readonly authorities: BindingAuthorities;
  readonly certificate: string;
  readonly sealedCredentials: Buffer;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly request: BindingRequest;
}

/** How an operation stands after a step. */
export interface Progress {
  readonly step: string;
  readonly description: string;
  readonly failure: string | undefined;
  readonly attempts: number;
}

/** What a worker runs again, and when. */
export interface Pause extends Progress {
  /** Milliseconds until the operation may be leased again. */
  readonly afterMs: number;
}

export interface Records {
  /** The tenant of this key, recorded where it is new. */
  tenant(platformId: string, key: string): Promise<Tenant>;

  /** The instance with the platform's id, deleted ones included. */
  instance(platformId: string, osbId: string, lock?: RowLock): Promise<Instance | undefined>;
  /** The instance with this id of its row. */
  instanceOfId(id: string, lock?: RowLock): Promise<Instance | undefined>;
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
  instancesHalfDeleted(sinceMs: number): Promise<readonly string[]>;
  /** Ids of instances that are ready and whose term is over; at most 100 at a time. */
  instancesDueToExpire(): Promise<readonly string[]>;

  /**
   * Keeps all others off this id until the transaction ends, also while there is no row of it: a DELETE that comes
   * in the middle of its PUT must find it.
   */
  holdInstanceId(platformId: string, osbId: string): Promise<void>;
  /** Remembers for an hour that this id was deleted before it was ever seen (osb-notes 40). */
  rememberUnseenDelete(platformId: string, osbId: string): Promise<void>;
  wasDeletedUnseen(platformId: string, osbId: string): Promise<boolean>;

  /**
   * Gives an instance its host: one that waits in the pool, of this plan and shape, by one update of its row
   * (`host.id` is not used then); else a new one with a slot of its own. Undefined where no slot is free.
   */
  insertHost(host: NewHost): Promise<Host | undefined>;

  /** Records a host for the pool, in state `pooling`; undefined where no slot is free. */
  insertPooledHost(host: NewPooledHost): Promise<PooledHost | undefined>;
  /** The hosts that belong to nobody yet, the oldest first. */
  pooledHosts(): Promise<readonly PooledHost[]>;
  /** Lets instances claim the host. False where it is not being made any more. */
  setHostPooled(hostId: string): Promise<boolean>;
  /** Lets nobody claim the host any more, so that it can be destroyed. False where somebody has claimed it. */
  withdrawPooledHost(hostId: string): Promise<boolean>;
  /** Makes `owner` the one who keeps this for so long, and true; false while another does. */
  keep(name: string, owner: string, leaseMs: number): Promise<boolean>;

  /** The host of an instance, unless it has been destroyed. */
  hostOfInstance(instanceId: string): Promise<Host | undefined>;
  /** A host of an instance, unless it has been destroyed. */
  livingHost(hostId: string): Promise<Host | undefined>;
  /** Every host of an instance that has not been destroyed. */
  livingHosts(): Promise<readonly Host[]>;
  setHostRunning(
    hostId: string,
    machine: { startedFrom: StartedFrom; engine: EngineAddress; imageVersion: string },
  ): Promise<void>;
  /** The host has no address until it runs again: gateways refuse its bindings. */
  setHostUnreachable(hostId: string): Promise<void>;
  /** Takes the host off the books and frees its slot. Only once nothing of it is left. */
  setHostDestroyed(hostId: string): Promise<void>;
  freeSlots(): Promise<number>;
  /** How many hosts there can be at a time. */
  readonly slotCount: number;

  /** Memory of the machine with the least of it among those whose workers have been heard of lately; undefined where none tells. */
  machineMemory(): Promise<MachineMemory | undefined>;
  /** Counts what an update adds to a host until its operation ends. */
  reserve(hostId: string, planName: string, added: Usage): Promise<void>;
  /**
   * Records that a host is going to sleep, or has woken; gateways hear of it.
   * @returns false where the host is not running as `from` says, or an operation is in progress on its instance.
   */
  setHostPower(hostId: string, from: HostPower, to: HostPower): Promise<boolean>;
  /** Records that a host which sleeps can't be woken for want of memory; gateways hear of it. */
  refuseWake(hostId: string): Promise<void>;
  /** Has gateways read again what they know of the host. */
  tellGateways(hostId: string): Promise<void>;
  /** Asks the worker for it. False where there is no such host to ask it of. */
  requestPower(hostId: string, power: HostPower): Promise<boolean>;
  powerRequest(hostId: string): Promise<PowerRequest | undefined>;
  powerRequests(): Promise<readonly PowerRequest[]>;
  /** The request has been met, unless another has come meanwhile. */
  forgetPowerRequest(request: PowerRequest): Promise<void>;

  /** What is in use in each of these scopes of `core/quotas.ts`. */
  usage(scopes: readonly string[]): Promise<ReadonlyMap<string, Usage>>;

  binding(instanceId: string, osbId: string): Promise<Binding | undefined>;
  /** False where the instance has a binding of this id already; nothing is written then. */
  insertBinding(binding: NewBinding): Promise<boolean>;
  /** Revokes a binding and forgets its private key; gateways hear of it on commit. */
  revokeBinding(id: string): Promise<void>;
  /** Revokes every live binding of an instance; returns their ids. */
  revokeBindingsOf(instanceId: string): Promise<readonly string[]>;

  /** @throws RefusedError (ConcurrencyError) where another is in progress on the instance. */
  insertOperation(
    operation: Pick<Operation, 'id' | 'kind' | 'instanceId' | 'step' | 'description' | 'deadline' | 'target'>,
  ): Promise<void>;
  operation(id: string): Promise<Operation | undefined>;
  /** The operation that is in progress on an instance; there is at most one. */
  unfinishedOperation(instanceId: string): Promise<Operation | undefined>;
  /**
   * An instance, and the operation on it that a platform is told of: the named one where it is of this instance and of
   * these kinds, else the newest of them. In one question, which platforms ask more often than any other.
   */
  reportedOperation(
    reference: { platformId: string; osbId: string; operationId: string | undefined },
    kinds: readonly OperationKind[],
  ): Promise<{ instance: Instance; operation: ReportedOperation | undefined } | undefined>;
  /** Ends an operation from outside, in favour of another; whoever holds it finds its fence passed. */
  haltOperation(id: string, description: string): Promise<void>;

  /**
   * Forgets operations of instances that were deleted so long ago, at most `limit` of them.
   * @returns how many it were.
   */
  forgetOperations(olderThanMs: number, limit: number): Promise<number>;

  /** Takes the oldest operation that is due and that no live lease holds. */
  leaseOperation(worker: string, leaseMs: number): Promise<LeasedOperation | undefined>;
  /** Each of the next four is refused, with false, where another has taken the operation over. */
  renewLease(operation: LeasedOperation, leaseMs: number): Promise<boolean>;
  recordProgress(operation: LeasedOperation, progress: Progress): Promise<boolean>;
  pauseOperation(operation: LeasedOperation, pause: Pause): Promise<boolean>;
  /**
   * Ends the operation and puts its instance into this state, where one is named. What an update that has
   * succeeded was to make of instance and host is recorded with it.
   */
  finishOperation(
    operation: LeasedOperation,
    outcome: { state: 'succeeded' | 'failed'; description: string; instance: InstanceState | undefined },
  ): Promise<boolean>;
  /** Milliseconds until the next operation is due; undefined where none waits. */
  nextDueMs(): Promise<number | undefined>;
}

/**
 * How a row is held until the transaction ends: `lock` for who changes it, `share` for who needs it to stay
 * as it is while others may do the same.
 */
export type RowLock = 'lock' | 'share';
