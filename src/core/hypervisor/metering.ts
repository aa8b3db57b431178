/** A host's use of the node's memory. */
export interface HostMemoryUsage {
  /** Proportional set size of the host's processes in MiB: a shared page counts in equal parts for all its users. */
  readonly pssMib: number;
}

/** Measures what hosts use. */
export interface Metering {
  /** Memory that a running host uses; undefined if it does not run, or the driver can't measure it. */
  memoryUsage(hostId: string): Promise<HostMemoryUsage | undefined>;
}
