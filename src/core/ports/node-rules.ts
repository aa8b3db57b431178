/** The network rules that all hosts of a node share, as its worker last found them. */
export interface NodeRules {
  readonly worker: string;
  /** How often they were missing or altered, and have been put back. */
  readonly repairs: number;
  /** The last repair, and what it put back, if it was within a day. */
  readonly lastRepair: { readonly at: Date; readonly altered: string } | undefined;
  /** Why they can't be checked or put back; undefined if they can, or the worker has ended. */
  readonly failure: string | undefined;
}

/** The worker's side. */
export interface NodeRuleRecords {
  /** Records a repair, or that the rules are in force, which ends a recorded failure. */
  recordInForce(
    worker: string,
    repaired?: { readonly repairs: number; readonly altered: string },
  ): Promise<void>;
  recordFailure(worker: string, reason: string): Promise<void>;
}
