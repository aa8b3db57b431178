import type { DropReason } from './connection-gate.ts';
import type { RefusalReason } from './refusal.ts';

/** Why open streams were cut: unbound or moved; expired; the lease ran out; the gateway stopped. */
export type CutReason = 'withdrawn' | 'expired' | 'lease-lost' | 'stopped';

/** What a gateway has done since it was made. */
export interface Counters {
  /** Connections that were led to an engine. */
  admitted: number;
  /** Connections that were answered with a refusal. */
  readonly refused: Record<RefusalReason, number>;
  /** Connections that were dropped without an answer. */
  readonly dropped: Record<DropReason, number>;
  /** Clients that spoke no TLS, or none that is accepted. */
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
      'engine-unreachable': 0,
    },
    dropped: { full: 0, 'address-full': 0, 'room-needed': 0, 'too-slow': 0 },
    failedHandshakes: 0,
    cut: { withdrawn: 0, expired: 0, 'lease-lost': 0, stopped: 0 },
    bytesToEngines: 0,
    bytesToClients: 0,
  };
}

/** How a gateway stands. */
export interface GatewayState {
  /** True while it serves; false while it refuses everything. */
  readonly inSync: boolean;
  /** Live bindings in memory: those that have connected or changed lately. */
  readonly bindingsHeld: number;
  /** Open connections that are led to an engine. */
  readonly connections: number;
  /** Open connections that have not been admitted. */
  readonly strangers: number;
  readonly counters: Counters;
}
