import type { HostSpec } from '../hypervisor/host-spec.ts';
import type { HostState, IdlePolicy, PoolHost } from '../model/host.ts';
import type { Instance } from '../model/instance.ts';

/**
 * How a host differs between Postgres and the hypervisor.
 * Orphans, which exist and are not living hosts on record: `leftover` (Postgres has it as destroyed), `ownerless`
 * (Postgres never heard of it, and no tenant has used it), `owned` (Postgres never heard of it, and a tenant has).
 * `unreadable`: the host's own record can't be read. `disputed`: the host's own record names another owner or slot than
 * Postgres, or the host was set aside. `missing`: Postgres has it as running, and nothing of it exists.
 */
export type DifferenceKind = 'leftover' | 'ownerless' | 'owned' | 'unreadable' | 'disputed' | 'missing';

/** What the installation itself remembers of a host's owner, in case Postgres loses its last transactions. */
export interface OwnerNote {
  readonly spec: HostSpec;
  readonly idle: IdlePolicy;
  /** Name of the platform, and the tenant's key in it. */
  readonly platform: string;
  readonly tenantKey: string;
  readonly instance: Omit<Instance, 'expiresAt'> & { readonly expiresAt: string | undefined };
}

/** A difference as reconciliation finds it. */
export interface FoundDifference {
  readonly hostId: string;
  readonly kind: DifferenceKind;
  readonly slot: number | undefined;
  /** Id of the instance that the host's own record names. */
  readonly owner: string | undefined;
  readonly note: OwnerNote | undefined;
}

/** A difference on record. */
export interface RecordedDifference {
  readonly hostId: string;
  readonly kind: DifferenceKind;
  /** Seconds since reconciliation first found it. */
  readonly ageSeconds: number;
  readonly removalRequested: boolean;
}

/** What Postgres knows of a host in any state. */
export interface KnownHost {
  readonly state: HostState | PoolHost['state'] | 'disputed';
  readonly slot: number;
  readonly instanceId: string | undefined;
}

/** The worker's side. */
export interface DifferenceRecords {
  /** Of those of these hosts that Postgres has ever heard of. */
  knownHosts(hostIds: readonly string[]): Promise<ReadonlyMap<string, KnownHost>>;
  /** Makes these the differences on record: new ones are inserted, those that are gone deleted. */
  replace(found: readonly FoundDifference[]): Promise<readonly RecordedDifference[]>;
  recordFailure(hostId: string, reason: string): Promise<void>;
  /** The owner of a host, to be noted; undefined if the host has none. */
  ownerOf(hostId: string): Promise<Omit<OwnerNote, 'spec'> | undefined>;
}

/** A difference as operators see it. */
export interface DifferenceOverview {
  readonly host: string;
  readonly kind: DifferenceKind;
  readonly slot: number | undefined;
  /** The platform's id of the instance that the host's own record names; Berth's if only that is known. */
  readonly instance: string | undefined;
  readonly firstSeenAt: Date;
  readonly canBeAdopted: boolean;
  readonly removalRequested: boolean;
  readonly failure: string | undefined;
}

/** The operators' side. */
export interface HostDifferences {
  /** Oldest first; at most 1,000. */
  list(): Promise<readonly DifferenceOverview[]>;
  /**
   * Asks the workers to remove the host, or the record of one that is missing.
   * @returns false if there is no such difference.
   */
  requestRemoval(hostId: string): Promise<boolean>;
  /**
   * Makes an orphan the host of the instance that its own record names, which is recorded again if Postgres has lost it.
   * Reconciliation then connects it.
   * @throws RefusedError with the reason and what to do instead.
   */
  adopt(hostId: string): Promise<void>;
}

/** The installation's own notes of hosts' owners, beside the hosts. */
export interface OwnerNotes {
  write(note: OwnerNote): Promise<void>;
  /** Undefined if there is none, or it is unreadable. */
  read(hostId: string): Promise<OwnerNote | undefined>;
  /** Ids of the hosts that have a note. */
  hostIds(): Promise<readonly string[]>;
  delete(hostId: string): Promise<void>;
}
