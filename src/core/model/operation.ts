import type { Egress, HostShape, RegistrySettings } from '../hypervisor/host-spec.ts';
import type { IdlePolicy } from './host.ts';
import type { JsonObject } from './json.ts';

/**
 * The kinds of operation. Berth itself begins `restart`, if a host's VM has ended, and `expire`, which destroys the
 * host of an expired instance.
 */
export type OperationKind = 'provision' | 'update' | 'deprovision' | 'restart' | 'expire';

/** The kinds that platforms begin; only these are reported to them. */
export const platformKinds: readonly OperationKind[] = ['provision', 'update', 'deprovision'];

/** What an update changes an instance and its host to. Stored as JSON. */
export interface UpdateTarget {
  readonly planId: string;
  readonly planName: string;
  readonly parameters: JsonObject;
  readonly shape: HostShape;
  /** Number of ports of the host's block that are published. */
  readonly publishedPorts: number;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  /** Undefined leaves the host's version. */
  readonly imageVersion?: string;
  readonly idle: IdlePolicy;
  /** ISO 8601; null if the instance doesn't expire. */
  readonly expiresAt: string | null;
}

/** A durable unit of work on an instance. */
export interface Operation {
  readonly id: string;
  readonly kind: OperationKind;
  readonly instanceId: string;
  readonly state: 'in progress' | 'succeeded' | 'failed';
  /** Name of the current step; `queued` before the first. */
  readonly step: string;
  /** The current step, for people; after a failure, the reason. */
  readonly description: string;
  /** Why the operation is rolled back; undefined while it goes forward. */
  readonly failure: string | undefined;
  /** Failed attempts of the current step. */
  readonly attempts: number;
  /** An operation that has not succeeded by then is rolled back and fails (docs/osb.md 18). */
  readonly deadline: Date;
  readonly createdAt: Date;
  /** Only of an update. */
  readonly target: UpdateTarget | undefined;
}

/** What is reported to a platform. */
export type ReportedOperation = Pick<Operation, 'kind' | 'instanceId' | 'state' | 'description'> & {
  /** When the instance's host is restarted, if it keeps ending. */
  readonly restartAt?: Date | undefined;
};

/** An operation that a worker has leased. A lease with a higher fence has replaced it. */
export interface LeasedOperation extends Operation {
  readonly fence: number;
}
