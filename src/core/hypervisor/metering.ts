/** A host's use of the node's memory. */
export interface HostMemoryUsage {
  /** Proportional set size of the host's processes in MiB: a shared page counts in equal parts for all its users. */
  readonly pssMib: number;
}

/** Measures what hosts use, and shares the node's processors among them. */
export interface Metering {
  /** Memory that a running host uses; undefined if it does not run, or the driver can't measure it. */
  memoryUsage(hostId: string): Promise<HostMemoryUsage | undefined>;

  /**
   * Processor time that each host has used since its VM was started, in milliseconds, by host id. Without hosts that do not
   * run; empty if the driver can't measure it.
   */
  processorTimes(): Promise<ReadonlyMap<string, number>>;

  /**
   * What a host gets if several want the same processors: in proportion to its weight, by host id, from 0.01 to 1. A VM
   * starts with 1. Hosts that do not run are left out.
   */
  setProcessorWeights(weights: ReadonlyMap<string, number>): Promise<void>;
}
