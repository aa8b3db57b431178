/** What an operator lets hosts take of the node's memory, or of its disk space. */
export interface AdmissionRules {
  /** What hosts never get, in MiB. */
  readonly reserveMib: number;
  /**
   * How many times the rest may be promised to hosts. Most of a host's memory is shared with its template or never
   * touched, and most of a disk is never written, so a factor above 1 is safe; how far above is the operator's estimate.
   */
  readonly overcommit: number;
}

/** A node's memory as its worker last reported it, in MiB. */
export interface NodeMemory {
  readonly totalMib: number;
  /** What the node can still hand out without swapping. */
  readonly availableMib: number;
  /** Guest memory of hosts that the report doesn't include yet: they are being created, or started after it. */
  readonly comingMib: number;
}

/** A request for guest memory, in MiB. */
export interface MemoryDemand {
  /** Memory newly promised; already recorded in the current transaction. */
  readonly promisedMib?: number;
  /** The part of the promised memory that is in use already: the host comes from the pool. */
  readonly inUseMib?: number;
  /** Memory of a suspended host that is about to resume: promised earlier, not in use now. */
  readonly wokenMib?: number;
}
