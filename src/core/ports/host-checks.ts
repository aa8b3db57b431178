import type { Drift } from '../hypervisor/integrity.ts';

/** What happens to a host with drift: it is reported, or put into quarantine as well. */
export type IntegrityPolicy = 'report' | 'quarantine';

/** Result of a host's last integrity check. */
export interface HostCheck {
  readonly host: string;
  /** The platform's id of the instance; undefined while the host is in the pool. */
  readonly instance: string | undefined;
  /** When a check last succeeded; undefined if none has. */
  readonly checkedAt: Date | undefined;
  /** Why the last check failed; undefined if it succeeded. The other fields are from the last successful check. */
  readonly failure: { readonly at: Date; readonly reason: string } | undefined;
  readonly drift: readonly Drift[];
  readonly quarantined: boolean;
}

/** What operators do: check hosts now, read the results, and release a host from quarantine. */
export interface HostChecks {
  /**
   * Makes the workers check hosts now, and waits for the results.
   * @param host prefix of a host's id; undefined means every running or parked host.
   * @throws RefusedError if there is no such host, or no worker has checked it in time.
   */
  now(host: string | undefined): Promise<readonly HostCheck[]>;
  /**
   * Asks the workers to end a host's quarantine.
   * @returns false if no host with this id is in quarantine.
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
 * A host that can be checked: it is running and connected, and no operation is in progress on its instance; or it is
 * parked.
 */
export interface CheckableHost {
  readonly hostId: string;
  readonly parked: boolean;
  readonly requested: boolean;
  readonly drift: readonly Drift[];
}

/** What the worker's integrity checks need from Postgres. */
export interface CheckRecords {
  checkable(): Promise<readonly CheckableHost[]>;
  /** Records the end of a check, and of the quarantine that it led to. */
  recordCheck(hostId: string, drift: readonly Drift[]): Promise<void>;
  /** Records that a check failed; the result of the last successful check stays recorded. */
  recordFailure(hostId: string, reason: string): Promise<void>;
  /**
   * Records a quarantine and its reason. Until an operator releases the host it has no address: gateways refuse its
   * bindings, and reconciliation doesn't restart it. The check continues until {@link recordCheck}.
   */
  recordQuarantine(hostId: string, drift: readonly Drift[]): Promise<void>;
  /** Hosts whose quarantine is recorded, but not the end of its check: the worker died in between. */
  unfinishedQuarantines(): Promise<readonly Pick<CheckableHost, 'hostId' | 'drift'>[]>;
  /** Ids of the hosts that an operator has released from quarantine and that no operation is changing. */
  released(): Promise<readonly string[]>;
  /** Records the end of a quarantine. The host has no address until reconciliation has restarted it. */
  recordRelease(hostId: string): Promise<void>;
}
