/** A plan that instances use. */
export interface PlanInUse {
  readonly serviceId: string;
  readonly planId: string;
  /** As the hosts of these instances have it; undefined if none has a host. */
  readonly planName: string | undefined;
  /** How many instances use it; deleted ones don't count. */
  readonly instances: number;
}

/** Which plans instances use, whatever the catalog lists now. */
export interface PlansInUse {
  list(): Promise<readonly PlanInUse[]>;
}
