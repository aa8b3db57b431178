import type { StartedFrom } from '../hypervisor/lifecycle.ts';
import type { EngineAddress } from '../hypervisor/network.ts';
import type { Host } from '../model/host.ts';
import type { RegistrySettings } from '../hypervisor/host-spec.ts';
import type { IdlePolicy } from '../model/host.ts';
import type { NewPooledHost } from './pool-records.ts';

export interface NewHost extends NewPooledHost {
  readonly instanceId: string;
  readonly tenantId: string;
  readonly registries: RegistrySettings;
  readonly idle: IdlePolicy;
}

/** Hosts of instances, and the slots that hosts take. */
export interface HostRecords {
  /**
   * Gives an instance its host: one that waits in the pool, of this plan and shape, by one update of its row
   * (`host.id` is not used then); else a new one with a slot of its own. Undefined where no slot is free.
   */
  insertHost(host: NewHost): Promise<Host | undefined>;
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
}
