/** The most that may be in use at a time; a resource that is left out is not limited. */
export interface Limits {
  readonly instances?: number;
  readonly vcpus?: number;
  /** In MiB. */
  readonly memoryMib?: number;
  /** In GiB. */
  readonly diskGib?: number;
  readonly publishedPorts?: number;
}

/** Limits on all hosts of a catalog or plan together, and on each tenant's share of them. */
export interface Quotas {
  readonly total: Limits;
  readonly tenant: Limits;
}

/** What is in use or reserved. */
export type Usage = Required<Limits>;
