import type { HostSpec } from './host-spec.ts';

/** What goes on at a host, as seen from outside. */
export interface HostTraffic {
  /** Connections to its engine that are open. */
  readonly connections: number;
  /** Packets that were ever sent to it; whatever somebody does with the host raises it. */
  readonly packets: number;
}

/** Puts hosts to sleep and wakes them. */
export interface Power {
  /**
   * Stops the processors of a host's machine. Nothing of it is lost: its memory and connections stay.
   * @throws HypervisorError where no machine runs.
   */
  pause(hostId: string): Promise<void>;

  /**
   * Writes the memory of a host's machine to disk and ends it. What was open to it is cut.
   * @throws HypervisorError where there is no machine, or no room on the disk; {@link resume} lets it go on then.
   */
  suspend(hostId: string): Promise<void>;

  /**
   * Lets a host go on that is paused or suspended; one that runs goes on running. Its clock is behind by the time
   * that it stood still, until {@link identify}; a suspended one must be prepared before and connected after.
   * @throws HypervisorError where there is nothing to go on with: its machine has ended.
   */
  resume(spec: HostSpec): Promise<void>;

  /** What goes on at these hosts; it costs their guests nothing. */
  traffic(specs: readonly HostSpec[]): Promise<ReadonlyMap<string, HostTraffic>>;
}
