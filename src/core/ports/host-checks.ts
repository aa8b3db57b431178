import type { Drift } from '../hypervisor/integrity.ts';

/** What becomes of a host that is found altered: an operator is told, or it is cut off as well. */
export type IntegrityPolicy = 'report' | 'quarantine';

/** How a host stood when it was last checked. */
export interface HostCheck {
  readonly host: string;
  /** The platform's id of the instance; undefined while the host waits in the pool. */
  readonly instance: string | undefined;
  /** When that last succeeded; undefined where it has not yet. */
  readonly checkedAt: Date | undefined;
  /** Why the last check came to nothing; undefined where it did not. What is known is from the one before. */
  readonly failure: { readonly at: Date; readonly reason: string } | undefined;
  readonly drift: readonly Drift[];
  readonly quarantined: boolean;
}

/** What operators do: ask for a check now, read what was found, and let a host go that was cut off for it. */
export interface HostChecks {
  /**
   * Has the workers check hosts now, and waits until they have.
   * @param host the beginning of a host's id; undefined: every host that runs or waits in the pool.
   * @throws RefusedError where there is no such host, or no worker has checked it in time.
   */
  now(host: string | undefined): Promise<readonly HostCheck[]>;
  /**
   * Asks the workers to end a host's quarantine.
   * @returns false where no host with this id is in quarantine.
   */
  release(hostId: string): Promise<boolean>;
}

/** What the operators' side needs of Postgres: the workers answer by rows. */
export interface CheckRequests {
  /**
   * Ids of living hosts, at most 1,000.
   * @param idPrefix the beginning of a host's id; undefined: every host that may be checked.
   */
  find(idPrefix: string | undefined): Promise<readonly string[]>;
  requestCheck(hostIds: readonly string[]): Promise<void>;
  /** `pending`: a worker is still to check it. Hosts that have been destroyed since are left out. */
  results(hostIds: readonly string[]): Promise<readonly { check: HostCheck; pending: boolean }[]>;
  /** Requests the end of a quarantine; false if no host with this id is in quarantine. */
  requestRelease(hostId: string): Promise<boolean>;
}

/**
 * A host that may be checked: it runs, is connected, and no operation is under way on its instance; or it is held for
 * the pool.
 */
export interface CheckableHost {
  readonly hostId: string;
  readonly parked: boolean;
  readonly requested: boolean;
  readonly drift: readonly Drift[];
}

/** What the worker's check needs of Postgres. */
export interface CheckRecords {
  checkable(): Promise<readonly CheckableHost[]>;
  /** The check is over, a quarantine that it led to included. */
  recordCheck(hostId: string, drift: readonly Drift[]): Promise<void>;
  /** The host could not be checked: what was known of it before stays on record, and so does that this is old. */
  recordFailure(hostId: string, reason: string): Promise<void>;
  /**
   * The host has no address until an operator has released it: gateways refuse its bindings, and reconciliation does
   * not bring it back. Why is on record with it. The check goes on until it is recorded as well.
   */
  recordQuarantine(hostId: string, drift: readonly Drift[]): Promise<void>;
  /** Hosts whose quarantine is on record, but not the end of the check that led to it: its worker died in between. */
  unfinishedQuarantines(): Promise<readonly Pick<CheckableHost, 'hostId' | 'drift'>[]>;
  /** Ids of the hosts in quarantine that an operator has let go, where no operation is under way. */
  released(): Promise<readonly string[]>;
  /** Ends the quarantine on record. The host has no address until reconciliation has brought it back. */
  recordRelease(hostId: string): Promise<void>;
}
