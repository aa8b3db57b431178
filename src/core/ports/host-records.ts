import type { StartedFrom } from '../hypervisor/lifecycle.ts';
import type { EngineAddress } from '../hypervisor/network.ts';
import type { Host, HostHalt } from '../model/host.ts';
import type { HostShape, RegistrySettings } from '../hypervisor/host-spec.ts';
import type { IdlePolicy } from '../model/host.ts';
import type { NewPoolHost } from './pool-records.ts';

/** A host for an instance. */
export interface NewHost extends NewPoolHost {
  readonly instanceId: string;
  readonly tenantId: string;
  readonly registries: RegistrySettings;
  readonly idle: IdlePolicy;
}

/** A host that an instance has got. */
export interface AssignedHost {
  readonly host: Host;
  /** The size that it has had in the pool; undefined if it was not there. */
  readonly parkedShape: HostShape | undefined;
}

/** Hosts of instances, and the slots of hosts. */
export interface HostRecords {
  /**
   * Gives an instance its host: by one update of its row the parked one that fits best (`host.id` is not used then), otherwise a
   * new one in a free slot. Undefined if no slot is free.
   * @param imageVersion that a parked host must have; undefined: it gets a new host.
   */
  insertHost(host: NewHost, imageVersion: string | undefined): Promise<AssignedHost | undefined>;
  /** Gives an instance a new host, although one of the pool would do. Undefined if no slot is free. */
  insertNewHost(host: NewHost): Promise<Host | undefined>;
  /** The host of an instance, unless it has been destroyed. */
  hostOfInstance(instanceId: string): Promise<Host | undefined>;
  /** The host with this id, if it belongs to an instance and has not been destroyed. */
  livingHost(hostId: string): Promise<Host | undefined>;
  /** Every host of an instance that has not been destroyed. */
  livingHosts(): Promise<readonly Host[]>;
  setHostRunning(
    hostId: string,
    vm: { startedFrom: StartedFrom; engine: EngineAddress; imageVersion: string },
  ): Promise<void>;
  /** Records why a host's VM is stopped; undefined: it runs. */
  setHostHalted(hostId: string, halted: HostHalt | undefined): Promise<void>;
  /** Removes the host's address until it runs again: gateways refuse its bindings. */
  setHostUnreachable(hostId: string): Promise<void>;
  /** Records when the memory of a suspended host turned out to be unusable. */
  recordMemoryLoss(hostId: string, at: Date): Promise<void>;
  /** Records the host as destroyed and frees its slot, which rests if the host had a tenant. Only once nothing of it exists any more. */
  setHostDestroyed(hostId: string): Promise<void>;
  /** Extends the host's block of ports; false if another host has some of them, or the range of ports ends. */
  growPortBlock(hostId: string, ports: number): Promise<boolean>;
  /** Slots that a host of any tenant could get now. */
  freeSlots(): Promise<number>;
  /** How many hosts can exist at once. */
  readonly slotCount: number;
}
