/** How often something happened at gateways. */
export interface GatewayCount {
  readonly event: GatewayEvent;
  /** Why it happened, in the words of the gateway's log; empty if there is only one reason. */
  readonly reason: string;
  readonly count: number;
}

export type GatewayEvent =
  /** A client was connected to its host. */
  | 'admitted'
  /** A client was answered with a refusal. */
  | 'refused'
  /** A client's connection was closed without an answer, before it was authenticated. */
  | 'dropped'
  /** A TLS handshake failed. */
  | 'failed'
  /** An open connection to a host was ended. */
  | 'cut'
  /** Bytes were passed on; the reason is the direction. */
  | 'bytes';

/** The totals of all gateways, of those that have ended as well. */
export interface GatewayCounts {
  /** Adds to the totals. If it fails, nothing was added, or its answer was lost. */
  add(counts: readonly GatewayCount[]): Promise<void>;
}
