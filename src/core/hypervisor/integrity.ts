/** Something of a host that is not as it was made. */
export interface Drift {
  /** Which part of the manifest, in a word or two, such as `firewall`. */
  readonly part: string;
  /** What is missing, and what was not there before; for operators. */
  readonly detail: string;
}

/** Finds drift, and isolates a host that has drifted. */
export interface Integrity {
  /**
   * Holds the running host against what was written down when it was made: process, privileges, limits, disks,
   * devices, firewall rules, and the digests of what it was made from.
   * @returns what has been altered; nothing, where all is as it was made.
   * @throws HypervisorError where its machine does not run.
   */
  verify(hostId: string): Promise<readonly Drift[]>;

  /**
   * Cuts the host from every network: {@link connect} refuses it until {@link release}. Its machine is left as it
   * is, for whoever looks into it. A host that does not exist is no error.
   */
  quarantine(hostId: string): Promise<void>;

  /** Ends a quarantine: {@link connect} opens the host's ways again. One that is in none, or not there, is no error. */
  release(hostId: string): Promise<void>;
}
