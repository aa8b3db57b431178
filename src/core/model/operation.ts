import type { Egress, HostShape, RegistrySettings } from '../hypervisor/host-spec.ts';
import type { IdlePolicy } from './host.ts';
import type { JsonObject } from './json.ts';

/**
 * The kinds of operation. Berth's own are `restart`, which brings back a host whose machine has gone, and
 * `expire`, which destroys a host whose instance's term is over.
 */
export type OperationKind = 'provision' | 'update' | 'deprovision' | 'restart' | 'expire';

/** The kinds that a platform asked for; what Berth does on its own account is not its business. */
export const platformKinds: readonly OperationKind[] = ['provision', 'update', 'deprovision'];

/** What an update is to make of an instance and its host. It is kept as JSON. */
export interface UpdateTarget {
  readonly planId: string;
  readonly planName: string;
  readonly parameters: JsonObject;
  readonly shape: HostShape;
  /** Number of ports out of the host's block. */
  readonly publishedPorts: number;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  /** Left out: whichever the host has. */
  readonly imageVersion?: string;
  readonly idle: IdlePolicy;
  /** ISO 8601; null: the instance has no term. */
  readonly expiresAt: string | null;
}

/** One durable piece of work on an instance. */
export interface Operation {
  readonly id: string;
  readonly kind: OperationKind;
  readonly instanceId: string;
  readonly state: 'in progress' | 'succeeded' | 'failed';
  /** Name of the step under way. */
  readonly step: string;
  /** The step in words for people; after a failure, why it failed. */
  readonly description: string;
  /** Why the operation is being undone; undefined while it goes forward. */
  readonly failure: string | undefined;
  /** How often the step under way has failed so far. */
  readonly attempts: number;
  /** An operation that can't end by then fails itself and cleans up first (docs/osb.md 18). */
  readonly deadline: Date;
  readonly createdAt: Date;
  /** Of an update only. */
  readonly target: UpdateTarget | undefined;
}

/** What a platform is told of. */
export type ReportedOperation = Pick<Operation, 'kind' | 'instanceId' | 'state' | 'description'>;

/** An operation that a worker holds: who has a higher fence has taken it over. */
export interface LeasedOperation extends Operation {
  readonly fence: number;
}
