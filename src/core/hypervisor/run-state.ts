/**
 * Why the processors of a VM are stopped although nobody has paused or suspended its host. `io-error`: a write to its
 * disk failed, usually because the node's disk is full; it continues once there is room. `internal-error`,
 * `guest-panicked`: it can't continue. `paused`: by {@link RunState.halt}, or by hand.
 */
export type Halt = 'io-error' | 'internal-error' | 'guest-panicked' | 'paused';

/** Space on the file system with the hosts' disks, in bytes. */
export interface DiskSpace {
  readonly availableBytes: number;
  /** What each host takes, by host id. */
  readonly hostBytes: ReadonlyMap<string, number>;
}

/** Sees VMs that have stopped by themselves, and stops those that would fill the node's disk. */
export interface RunState {
  /**
   * Why the VM is stopped; undefined if it runs, does not exist, or if its host is parked, paused or suspended.
   * @throws HypervisorError if the VM does not answer within a few seconds.
   */
  haltOf(hostId: string): Promise<Halt | undefined>;

  /**
   * Stops the CPUs of the VM, so that it writes nothing. Takes no lock and writes nothing itself: it works on a full disk and
   * while something else acts on the host. {@link Power.resume} continues the VM.
   * @throws HypervisorError if no VM runs, or it does not answer within a few seconds.
   */
  halt(hostId: string): Promise<void>;

  /** Undefined if hosts take no space of the node. */
  diskSpace(): Promise<DiskSpace | undefined>;
}
