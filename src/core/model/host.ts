import type { Egress, HostShape, PortBlock, RegistrySettings } from '../hypervisor/host-spec.ts';
import type { StartedFrom } from '../hypervisor/lifecycle.ts';
import type { EngineAddress } from '../hypervisor/network.ts';

/**
 * The VM that serves an instance.
 * `creating`: recorded, perhaps partly made. `running`: made, identified, connected. `destroyed`: gone for good.
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

export type HostState = 'creating' | 'running' | 'destroyed';

/**
 * Whether a running host's processors run. `paused` and `suspended` are on record before they are so, `on` after it
 * is: who finds a host asleep asks for it to be woken, and is right or does no harm.
 */
export type HostPower = 'running' | 'paused' | 'suspended';

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
 * A host that belongs to nobody yet. `parking`: recorded, being made or being destroyed. `parked`: held ready,
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
  readonly state: 'parking' | 'parked';
}
