import type { DropReason } from './connection-gate.ts';
import type { RefusalReason } from './refusal.ts';

/**
 * Why open streams were cut: the binding was revoked or its host moved; the certificate expired; the lease ran
 * out; the gateway stopped; too much was buffered for clients or engines that don't read; the host could not be woken for
 * bytes of the client.
 */
export type CutReason = 'invalidated' | 'expired' | 'lease-lost' | 'stopped' | 'stalled' | 'not-woken';

/** Totals since the gateway was created. */
export interface Counters {
  /** Connections that were proxied to an engine. */
  admitted: number;
  /** Connections that were answered with a refusal. */
  readonly refused: Record<RefusalReason, number>;
  /** Connections that were dropped without an answer. */
  readonly dropped: Record<DropReason, number>;
  /** Handshakes that failed: not TLS, or no protocol version or cipher in common. */
  failedHandshakes: number;
  /** Streams that were cut. */
  readonly cut: Record<CutReason, number>;
  bytesToEngines: number;
  bytesToClients: number;
}

export function createCounters(): Counters {
  return {
    admitted: 0,
    refused: {
      untrusted: 0,
      unknown: 0,
      expired: 0,
      'out-of-sync': 0,
      'look-up-failed': 0,
      'host-away': 0,
      'host-asleep': 0,
      'no-room': 0,
      'too-many': 0,
      'too-many-of-host': 0,
      'too-many-of-tenant': 0,
      'engine-unreachable': 0,
    },
    dropped: { 'address-full': 0, 'room-needed': 0, silent: 0, 'too-slow': 0, 'too-much': 0 },
    failedHandshakes: 0,
    cut: { invalidated: 0, expired: 0, 'lease-lost': 0, stopped: 0, stalled: 0, 'not-woken': 0 },
    bytesToEngines: 0,
    bytesToClients: 0,
  };
}

/** The gateway's current state. */
export interface GatewayState {
  /** True while it serves; false while it refuses every connection. */
  readonly inSync: boolean;
  /** Live bindings in memory: those that connected or changed recently. */
  readonly cachedBindings: number;
  /** Open connections that are proxied to an engine. */
  readonly connections: number;
  /** Open connections that have not been admitted. */
  readonly unauthenticated: number;
  readonly counters: Counters;
}
