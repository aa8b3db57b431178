import type { HostSpec } from './host-spec.ts';

/** A host's network activity, measured from outside the guest. */
export interface HostTraffic {
  /** Open connections to the engine. */
  readonly connections: number;
  /** Packets ever sent to the host. Any use of the host raises this number. */
  readonly packets: number;
}

/** Pauses, suspends and resumes hosts. */
export interface Power {
  /**
   * Stops the CPUs of the VM. Its memory and its connections stay.
   * @throws HypervisorError if no VM runs.
   */
  pause(hostId: string): Promise<void>;

  /**
   * Writes the memory of the VM to disk and ends it. Connections may outlast it: they continue after {@link resume}, or are
   * reset then.
   * @throws HypervisorError if there is no VM, or not enough disk space: {@link resume} then continues the VM.
   */
  suspend(hostId: string): Promise<void>;

  /**
   * Continues a paused or suspended VM; a running one is left alone. The guest's clock is behind
   * until {@link Guest.identify}. A suspended host needs {@link Lifecycle.prepare} before and
   * {@link Network.connect} after.
   * @throws MemoryLostError if the memory of a suspended host can't be loaded, for example because it is damaged or was saved
   *   by another version of the hypervisor. The host is then `stopped`, and {@link Lifecycle.start} boots it from its disk.
   * @throws HypervisorError if there is no VM to continue.
   */
  resume(spec: HostSpec): Promise<void>;

  /** Activity of these hosts, by host id. Asking does not disturb their guests. */
  traffic(specs: readonly HostSpec[]): Promise<ReadonlyMap<string, HostTraffic>>;
}
