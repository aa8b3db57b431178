/** A host's use of the machine's memory. */
export interface HostMemoryUsage {
  /** Proportional set size of the host's processes, in MiB: shared pages are divided by their users. */
  readonly pssMib: number;
}

/** Measures what hosts use. */
export interface Metering {
  /** Memory in use by a running host; undefined where it does not run or the driver can't tell. */
  memoryUsage(hostId: string): Promise<HostMemoryUsage | undefined>;
}
