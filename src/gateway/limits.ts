/** What bounds a gateway in number and time, so that no client can use up what others need. */
export interface GatewayLimits {
  /** Open connections of all clients together, in whatever state. More are dropped. */
  readonly maxConnections: number;
  /** Open connections of one binding. More are refused with an answer that says so. */
  readonly maxConnectionsPerBinding: number;
  /**
   * Connections that have not been admitted: handshakes that have not ended, and clients that are being
   * refused. Where there are more, the oldest is dropped.
   */
  readonly maxStrangers: number;
  /** The same from one address. More are dropped. Many apps may share an address. */
  readonly maxStrangersPerAddress: number;
  /** Bindings that are held in memory, besides those that have a connection open; others are looked up. */
  readonly maxBindingsHeld: number;
  /** Certificates that are being looked up in the database at the same time. */
  readonly maxLookUps: number;
  /** From a connection to its admission, or to the end of its refusal. Milliseconds. */
  readonly handshakeTimeoutMs: number;
  /** How long the database may take to look a certificate up. Milliseconds. */
  readonly lookUpTimeoutMs: number;
  /** How long an engine may take to accept a connection. Milliseconds. */
  readonly connectTimeoutMs: number;
  /** How long a host that sleeps may take to be woken, less than a handshake may. Milliseconds. */
  readonly wakeTimeoutMs: number;
  /** After so long with no connection an engine's host is asked to be woken: it may have just fallen asleep. Milliseconds. */
  readonly slowConnectMs: number;
  /** Silence after which the kernel asks whether the other side is still there. Milliseconds. */
  readonly keepAliveMs: number;
}

export const defaultLimits: GatewayLimits = {
  maxConnections: 10_000,
  maxConnectionsPerBinding: 1_000,
  maxStrangers: 1_000,
  maxStrangersPerAddress: 250,
  maxBindingsHeld: 20_000,
  // One query asks for all that wait, so a crowd that comes back after an outage is no burden.
  maxLookUps: 1_000,
  handshakeTimeoutMs: 10_000,
  lookUpTimeoutMs: 2_000,
  connectTimeoutMs: 5_000,
  wakeTimeoutMs: 8_000,
  slowConnectMs: 250,
  keepAliveMs: 30_000,
};
