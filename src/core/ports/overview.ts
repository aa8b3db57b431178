import type { GatewayCount } from './gateway-counts.ts';
import type { CertificateAuthorityOverview } from './certificate-authorities.ts';
import type { DifferenceKind } from './host-differences.ts';
import type { NodeRules } from './node-rules.ts';
import type { Usage } from '../model/usage.ts';
import type { HostHalt, HostPower, HostState, PoolHost } from '../model/host.ts';
import type { InstanceState } from '../model/instance.ts';

/** What operators see. Read from Postgres alone, so that any api process can answer. */
export interface Overview {
  /** Every host that has not been destroyed; at most the first 1,000. */
  hosts(): Promise<readonly HostOverview[]>;
  counts(): Promise<Counts>;
  /** Names of the plans whose hosts a living worker restores from the template now. */
  restoredPlans(): Promise<ReadonlySet<string>>;
  /** Of each worker that has had something to report. */
  nodeRules(): Promise<readonly NodeRules[]>;
}

/** A host as operators see it. */
export interface HostOverview {
  readonly host: string;
  /** `disputed`: set aside, see `problem`. */
  readonly state: HostState | PoolHost['state'] | 'disputed';
  /** Why it was set aside; undefined if it was not. */
  readonly problem: string | undefined;
  readonly plan: string;
  /** The platform's id of the instance; undefined, like the tenant, while the host is in the pool. */
  readonly instance: string | undefined;
  readonly instanceState: InstanceState | undefined;
  readonly tenant: string | undefined;
  /** Names as the platform gave them, unescaped, each at most 255 characters; undefined if it gave none. */
  readonly instanceName: string | undefined;
  readonly tenantName: string | undefined;
  readonly startedFrom: string | undefined;
  /** The version of the guest image that it boots; undefined until it first ran. */
  readonly imageVersion: string | undefined;
  readonly power: HostPower;
  /** Why its VM is stopped although it should run; undefined: it is not. */
  readonly halted: HostHalt | undefined;
  readonly engine: string | undefined;
  readonly publishedPorts: string;
  readonly liveBindings: number;
  readonly createdAt: Date;
  /**
   * Result of the last integrity check; `check failed` if it could not be completed and no drift is known; undefined
   * before the first one.
   */
  readonly integrity: 'intact' | 'drift' | 'quarantined' | 'check failed' | undefined;
  /** Of a host that keeps ending: restarts in a row, and when the next one begins; undefined for any other. */
  readonly pausedRestart: { readonly restarts: number; readonly at: Date } | undefined;
  /** When the memory that it was suspended to last turned out to be unusable, so that it booted instead. */
  readonly memoryLostAt: Date | undefined;
  /** When the host is destroyed, because its instance expires. */
  readonly expiresAt: Date | undefined;
}

/** Counts, for metrics and health. */
export interface Counts {
  /** States at present; `deleted` ones so far, like all final states below. */
  readonly instances: readonly { state: string; count: number }[];
  /** A sleeping host counts as `paused` or `suspended`. */
  readonly hosts: readonly { state: string; plan: string; count: number }[];
  /** What hosts were first started from, including destroyed ones. */
  readonly made: readonly { from: string; plan: string; count: number }[];
  readonly operations: readonly { kind: string; state: string; count: number; seconds: number }[];
  readonly bindings: readonly { state: string; count: number }[];
  /** Instances that expire within each of several periods; expired ones are not counted. */
  readonly expiring: readonly { within: string; count: number }[];
  /** Usage of all quotas, over all tenants. */
  readonly usage: Usage;
  /** Running and parked hosts by the result of their last check, and the age of the oldest of these checks. */
  readonly integrity: readonly { result: string; count: number; oldestSeconds: number }[];
  /** Trusted certificate authorities, and when their certificates expire. */
  readonly certificateAuthorities: readonly Pick<
    CertificateAuthorityOverview,
    'name' | 'state' | 'expiresAt'
  >[];
  /** Hosts that keep ending and wait for their next restart. */
  readonly restartsPaused: number;
  /** Sleeping hosts whose last wake was refused for lack of memory. */
  readonly wakesRefused: number;
  /** Running hosts whose VM is stopped, by reason. */
  readonly halted: readonly { reason: HostHalt; count: number }[];
  readonly freeSlots: number;
  /** Hosts that differ from their records, by kind; every kind is listed. */
  readonly differences: readonly { kind: DifferenceKind; count: number }[];
  readonly gateways: { readonly live: number; readonly connections: number };
  /** What happened at all gateways since the installation began. */
  readonly gatewayCounts: readonly GatewayCount[];
  readonly workers: readonly {
    name: string;
    hypervisor: string;
    templates: string[];
    memoryAvailableMib: number | null;
    /** In MiB, as are the next two; null if its hosts take no disk space of the node. */
    diskAvailableMib: number | null;
    diskCapacityMib: number | null;
    diskReserveMib: number | null;
    alive: boolean;
    /** See `PreparationState`; null if there is none. */
    preparing: string | null;
    preparationProblem: string | null;
  }[];
}
