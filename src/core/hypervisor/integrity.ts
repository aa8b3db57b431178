/** A difference between a host and its manifest. */
export interface Drift {
  /** Section of the manifest, such as `firewall`. */
  readonly part: string;
  /** Missing and added lines, for operators. */
  readonly detail: string;
}

/** Finds drift, and isolates a host that has drifted. */
export interface Integrity {
  /**
   * Compares the running host with the manifest that was recorded when it was started: process, privileges, limits,
   * disks, devices, firewall rules, and the digests of the files that it was made from.
   * @returns the differences; empty if there are none.
   * @throws HypervisorError if no VM runs, or it could not be inspected: that alone is not drift.
   */
  verify(hostId: string): Promise<readonly Drift[]>;

  /**
   * Cuts the host off from every network and makes {@link Network.connect} refuse it until {@link release}. The VM is
   * left as it is for an investigation. Does nothing if the host does not exist.
   */
  quarantine(hostId: string): Promise<void>;

  /** Ends a quarantine, so that {@link Network.connect} works again. Does nothing if there is none, or no such host. */
  release(hostId: string): Promise<void>;
}
