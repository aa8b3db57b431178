import type { LiveBinding } from '../core/ports/live-bindings.ts';
import { leavesShare } from './fair-share.ts';
import type { GatewayLimits } from './limits.ts';

/** The limit that a further connection would exceed: of its binding, its host, its tenant, or of the gateway. */
export type PlaceRefusal = 'too-many' | 'too-many-of-host' | 'too-many-of-tenant';

/** The connections of authenticated clients, counted by binding, host and tenant. */
export interface Places {
  /** Takes a place for a connection of the binding. @returns a function that releases it, or why there is none. */
  take(binding: LiveBinding): (() => void) | PlaceRefusal;
}

/** Counts by name; a count of 0 takes no memory. */
class Tally {
  readonly #counts = new Map<string, number>();

  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  add(name: string, change: number): void {
    const count = this.of(name) + change;
    if (count === 0) this.#counts.delete(name);
    else this.#counts.set(name, count);
  }
}

/** A tenant may have as many connections as are still left for others: so it never takes the last part. */
export function createPlaces(limits: GatewayLimits): Places {
  const [ofBinding, ofHost, ofTenant] = [new Tally(), new Tally(), new Tally()];
  let total = 0;

  function count({ bindingId, hostId, tenantId }: LiveBinding, change: number): void {
    ofBinding.add(bindingId, change);
    ofHost.add(hostId, change);
    ofTenant.add(tenantId, change);
    total += change;
  }

  return {
    take(binding) {
      if (ofBinding.of(binding.bindingId) >= limits.maxConnectionsPerBinding) return 'too-many';
      if (ofHost.of(binding.hostId) >= limits.maxConnectionsPerHost) return 'too-many-of-host';
      const own = ofTenant.of(binding.tenantId);
      if (own >= limits.maxConnectionsPerTenant || !leavesShare(own, total, limits.maxConnections)) {
        return 'too-many-of-tenant';
      }
      count(binding, 1);
      let isReleased = false;
      return () => {
        if (isReleased) return;
        isReleased = true;
        count(binding, -1);
      };
    },
  };
}
