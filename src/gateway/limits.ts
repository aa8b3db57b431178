/** Limits in number and time, so that no client can exhaust what other clients need. */
export interface GatewayLimits {
  /** Open connections of all authenticated clients together. A tenant may have half of what others leave. */
  readonly maxConnections: number;
  /** Open connections of one tenant, host, binding. More are refused with an answer that says so. */
  readonly maxConnectionsPerTenant: number;
  readonly maxConnectionsPerHost: number;
  readonly maxConnectionsPerBinding: number;
  /**
   * Connections that have not been admitted: pending handshakes, and clients that are being refused. At the
   * limit, one of the address that has most of them is dropped.
   */
  readonly maxUnauthenticated: number;
  /** The same from one address. At the limit, one of the same address is dropped. Many apps may share an address. */
  readonly maxUnauthenticatedPerAddress: number;
  /** Bytes of a client's first message, before the gateway has answered. */
  readonly maxHelloBytes: number;
  /** Bytes of everything else that a client sends in its handshake, its certificates above all. */
  readonly maxFlightBytes: number;
  /**
   * Part of the thread's time, 0 to 1, for the handshakes of clients that have no live binding. An address gets
   * half of what others leave.
   */
  readonly handshakeThreadShare: number;
  /** Bytes that may be buffered for one direction of one stream before its sender is paused. */
  readonly maxBufferedBytesPerDirection: number;
  /** Bytes that may be buffered for all streams together; beyond, streams whose readers stall are cut. */
  readonly maxBufferedBytes: number;
  /** Streams whose reader has been behind for {@link stalledAfterMs}; beyond, some are cut. */
  readonly maxStalledStreams: number;
  /** Milliseconds. */
  readonly stalledAfterMs: number;
  /** Bindings in memory, besides those that have a connection open; all others are looked up. */
  readonly maxCachedBindings: number;
  /** Certificates that are looked up in the database at the same time. */
  readonly maxLookUps: number;
  /** Longest time from a connection to its first bytes. Milliseconds. */
  readonly firstBytesTimeoutMs: number;
  /** Longest time from the first bytes to the admission, or to the end of a refusal. Milliseconds. */
  readonly handshakeTimeoutMs: number;
  /** Longest time for the database to look a certificate up. Milliseconds. */
  readonly lookUpTimeoutMs: number;
  /** Longest time for an engine to accept a connection. Milliseconds. */
  readonly connectTimeoutMs: number;
  /** Longest time to wake a sleeping host. Milliseconds. */
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
  maxConnectionsPerTenant: 4_000,
  maxConnectionsPerHost: 2_000,
  maxConnectionsPerBinding: 1_000,
  maxUnauthenticated: 1_000,
  maxUnauthenticatedPerAddress: 250,
  // A hello with post-quantum key shares has under 2 KiB.
  maxHelloBytes: 4_096,
  // A binding's certificate, its CA's, their proof, and a second hello: under 3,000.
  maxFlightBytes: 3_072,
  // A ping passes the thread twice, so most pings meet no handshake.
  handshakeThreadShare: 0.2,
  maxBufferedBytesPerDirection: 64 * 1024,
  maxBufferedBytes: 128 * 1024 * 1024,
  // Each costs the kernel up to 10 MiB with Linux's defaults: 1 GiB in all.
  maxStalledStreams: 100,
  stalledAfterMs: 10_000,
  maxCachedBindings: 20_000,
  // One query covers all pending look-ups, so the clients that return after an outage cost few queries.
  maxLookUps: 1_000,
  firstBytesTimeoutMs: 3_000,
  handshakeTimeoutMs: 10_000,
  lookUpTimeoutMs: 2_000,
  connectTimeoutMs: 5_000,
  wakeTimeoutMs: 8_000,
  slowConnectMs: 250,
  keepAliveMs: 30_000,
};
