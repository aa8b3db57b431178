/** Limits in number and time, so that no client can exhaust what other clients need. */
export interface GatewayLimits {
  /** Open connections of all clients together, in any state. More are dropped. */
  readonly maxConnections: number;
  /** Open connections of one binding. More are refused with an answer that says so. */
  readonly maxConnectionsPerBinding: number;
  /**
   * Connections that have not been admitted: pending handshakes, and clients that are being refused. At the
   * limit, the oldest is dropped.
   */
  readonly maxUnauthenticated: number;
  /** The same from one address. More are dropped. Many apps may share an address. */
  readonly maxUnauthenticatedPerAddress: number;
  /** Bindings in memory, besides those that have a connection open; all others are looked up. */
  readonly maxCachedBindings: number;
  /** Certificates that are looked up in the database at the same time. */
  readonly maxLookUps: number;
  /** Longest time from a connection to its admission, or to the end of its refusal. Milliseconds. */
  readonly handshakeTimeoutMs: number;
  /** Longest time for the database to look a certificate up. Milliseconds. */
  readonly lookUpTimeoutMs: number;
  /** Longest time for an engine to accept a connection. Milliseconds. */
  readonly connectTimeoutMs: number;
  /** Longest time to wake a sleeping host; must be less than `handshakeTimeoutMs`. Milliseconds. */
  readonly wakeTimeoutMs: number;
  /**
   * If an engine hasn't accepted a connection within this time, its host is asked to wake: it may have been
   * paused a moment ago. Milliseconds.
   */
  readonly slowConnectMs: number;
  /** Idle time before the kernel sends TCP keep-alive probes. Milliseconds. */
  readonly keepAliveMs: number;
}

export const defaultLimits: GatewayLimits = {
  maxConnections: 10_000,
  maxConnectionsPerBinding: 1_000,
  maxUnauthenticated: 1_000,
  maxUnauthenticatedPerAddress: 250,
  maxCachedBindings: 20_000,
  // One query covers all pending look-ups, so the clients that return after an outage cost few queries.
  maxLookUps: 1_000,
  handshakeTimeoutMs: 10_000,
  lookUpTimeoutMs: 2_000,
  connectTimeoutMs: 5_000,
  wakeTimeoutMs: 8_000,
  slowConnectMs: 250,
  keepAliveMs: 30_000,
};
