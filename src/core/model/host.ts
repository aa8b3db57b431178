import type { Egress, HostShape, PortBlock, RegistrySettings } from '../hypervisor/host-spec.ts';
import type { StartedFrom } from '../hypervisor/lifecycle.ts';
import type { EngineAddress } from '../hypervisor/network.ts';
import type { Halt } from '../hypervisor/run-state.ts';

/**
 * The VM that serves an instance.
 * `creating`: recorded, perhaps partly created. `running`: created, identified, connected. `destroyed`: gone.
 */
export interface Host {
  readonly id: string;
  readonly instanceId: string;
  readonly tenantId: string;
  readonly planName: string;
  readonly slot: number;
  readonly shape: HostShape;
  readonly publishedPorts: PortBlock;
  /** Number of ports from the first published one on that no other host gets. */
  readonly portBlock: number;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  /** Version of the image that it boots; undefined until it has run. */
  readonly imageVersion: string | undefined;
  readonly state: HostState;
  readonly startedFrom: StartedFrom | undefined;
  /** What happens while it is idle. */
  readonly idle: IdlePolicy;
  readonly power: HostPower;
  readonly powerSince: Date;
  readonly engine: EngineAddress | undefined;
  /** Why its VM is stopped although it should run, as last seen; undefined: it is not. */
  readonly halted: HostHalt | undefined;
  /** It differs from its manifest and is cut off from all networks until an operator releases it or it is destroyed. */
  readonly quarantined: boolean;
  /** When the memory that it was suspended to last turned out to be unusable, so that it booted instead; undefined: never. */
  readonly memoryLostAt: Date | undefined;
}

/** `disk-full`: its VM was halted to save the node's reserve of disk space. */
export type HostHalt = Halt | 'disk-full';

export type HostState = 'creating' | 'running' | 'destroyed';

/**
 * Whether a running host's processors run. `paused` and `suspended` are recorded before they take effect, `running`
 * afterwards: if the record says asleep, asking for a wake is right or harmless.
 */
export type HostPower = 'running' | 'paused' | 'suspended';

/** A power state that a gateway or an operator asks for. */
export interface PowerRequest {
  readonly hostId: string;
  readonly power: HostPower;
  /** Distinguishes it from a later request for the same host. */
  readonly askedAt: Date;
}

/** What happens to an idle host. */
export type IdlePolicy = 'run' | 'pause' | 'suspend';

/**
 * A host without an owner. `parking`: recorded, being created or destroyed. `parked`: ready, until an instance claims
 * it. A claimed host never returns to the pool.
 */
export interface PoolHost {
  readonly id: string;
  readonly planName: string;
  readonly slot: number;
  readonly shape: HostShape;
  readonly publishedPorts: PortBlock;
  readonly portBlock: number;
  readonly egress: Egress;
  readonly registries: RegistrySettings;
  readonly imageVersion: string | undefined;
  readonly state: 'parking' | 'parked';
}
