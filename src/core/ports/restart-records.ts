/** Restarts of hosts whose VM keeps ending, in growing intervals. */
export interface RestartRecords {
  /**
   * Records that a host does not run. The first restart is due at once; each further one waits twice as long (10 s to
   * 15 min), unless the host has run for ten minutes since the last.
   * @param wasReachable whether it ran, as far as its row says; false if its last restart failed.
   * @returns whether a restart is due, and when otherwise.
   */
  recordHostEnd(
    hostId: string,
    wasReachable: boolean,
  ): Promise<{ due: boolean; restarts: number; retryAt: Date }>;
  /** Records that a restart begins. */
  recordRestart(hostId: string): Promise<void>;
}
