import type {
  Egress,
  EngineAddress,
  HostShape,
  PortBlock,
  RegistrySettings,
  StartedFrom,
} from './hypervisor.ts';

/** JSON as it comes from a request body. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * An OSB service instance: what a tenant asked for.
 * `creating` → `ready` | `failed`; `ready` → `expired` at the end of its term; any of them → `deleting` →
 * `deleted`, or back to `failed`.
 */
export interface Instance {
  /** UUID of the row; never leaves the broker. */
  readonly id: string;
  readonly platformId: string;
  readonly tenantId: string;
  /** The platform's id of the instance. */
  readonly osbId: string;
  readonly serviceId: string;
  readonly planId: string;
  readonly parameters: JsonObject;
  /** What the platform says of it: names of org and space, and such. */
  readonly context: JsonObject;
  readonly state: InstanceState;
  /** When its host is destroyed; undefined where it has no term. */
  readonly expiresAt: Date | undefined;
}

export type InstanceState = 'creating' | 'ready' | 'failed' | 'expired' | 'deleting' | 'deleted';

/** Whom a host belongs to. */
export interface Tenant {
  readonly id: string;
  readonly platformId: string;
  /** What tells tenants of one platform apart, for example `org:6f0c…`. */
  readonly key: string;
}

/**
 * The VM that serves an instance.
 * `planned`: recorded, perhaps partly made. `running`: made, identified, connected. `destroyed`: gone for good.
 */
export interface Host {
  readonly id: string;
  readonly instanceId: string;
  readonly tenantId: string;
  readonly planName: string;
  readonly slot: number;
  readonly shape: HostShape;
  readonly publishedPorts: PortBlock;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  /** Version of the image that it boots; undefined until it first ran. */
  readonly imageVersion: string | undefined;
  readonly state: HostState;
  readonly startedFrom: StartedFrom | undefined;
  /** What is done with it while nobody uses it. */
  readonly idle: IdlePolicy;
  readonly power: HostPower;
  readonly powerSince: Date;
  readonly engine: EngineAddress | undefined;
  /** It was found altered and is cut off, until it is destroyed. */
  readonly quarantined: boolean;
}

export type HostState = 'planned' | 'running' | 'destroyed';

/**
 * Whether a running host's processors run. `paused` and `suspended` are on record before they are so, `on` after it
 * is: who finds a host asleep asks for it to be woken, and is right or does no harm.
 */
export type HostPower = 'on' | 'paused' | 'suspended';

/** What a gateway or an operator wants of a host. */
export interface PowerRequest {
  readonly hostId: string;
  readonly power: HostPower;
  /** Tells it from a later one of the same host. */
  readonly askedAt: Date;
}

/** What is done with a host that nobody uses. */
export type IdlePolicy = 'run' | 'pause' | 'suspend';

/**
 * A host that belongs to nobody yet. `pooling`: recorded, being made or being destroyed. `pooled`: held ready,
 * for an instance to claim it. It never comes back from there.
 */
export interface PooledHost {
  readonly id: string;
  readonly planName: string;
  readonly slot: number;
  readonly shape: HostShape;
  readonly publishedPorts: PortBlock;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  readonly imageVersion: string | undefined;
  readonly state: 'pooling' | 'pooled';
}

/** An OSB service binding: one client certificate for one instance. */
export interface Binding {
  readonly id: string;
  readonly osbId: string;
  readonly instanceId: string;
  readonly serial: string;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly state: 'live' | 'revoked';
  readonly revokedAt: Date | undefined;
  /** What was asked for, to tell a retry from a conflict. */
  readonly request: BindingRequest;
  /** The credentials, encrypted under the master key and tied to this row; undefined once revoked. */
  readonly sealedCredentials: Buffer | undefined;
}

export interface BindingRequest {
  readonly appGuid: string | undefined;
  readonly parameters: JsonObject;
  /** The platform's id of the binding whose place this one takes. */
  readonly predecessor: string | undefined;
}

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
  /** An operation that can't end by then fails itself and cleans up first (osb-notes 18). */
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
