import type { LiveBinding } from '../core/ports/live-bindings.ts';

/** Live bindings that connected or changed recently, for a look-up on every connection. */
export interface LiveCache {
  bySerial(serial: string): LiveBinding | undefined;
  /** Stores a binding as it was read. */
  put(binding: LiveBinding): void;
  /** The binding is not live any more, or never was. */
  remove(bindingId: string): void;
  /** Forgets every binding without open streams. Returns the ids of those that remain. */
  forgetIdle(): readonly string[];
  size(): number;
}

/** Share of the capacity that remains after an eviction: evictions are rare, and remove many at once. */
const refillShare = 0.9;

/**
 * @param deps.capacity most bindings in memory. Those with open streams are retained even beyond it.
 * @param deps.isOpen whether a binding has open streams. Such a binding is never evicted: a revocation could
 * not cut the streams of a binding that the cache doesn't know.
 * @param deps.onInvalidated is called for each cached binding that is gone or has changed its address: its open
 * streams must be cut. The cache has already forgotten it.
 * @param deps.onRead is called with each binding as it was read.
 */
export function createLiveCache(deps: {
  capacity: number;
  isOpen: (bindingId: string) => boolean;
  onInvalidated: (bindingId: string) => void;
  onRead: (binding: LiveBinding) => void;
}): LiveCache {
  const bySerial = new Map<string, LiveBinding>();
  /** In the order of their first read. */
  const byId = new Map<string, LiveBinding>();

  function forget(cached: LiveBinding): void {
    byId.delete(cached.bindingId);
    bySerial.delete(cached.serial);
  }

  function remove(bindingId: string): void {
    const cached = byId.get(bindingId);
    if (cached === undefined) return;
    forget(cached);
    deps.onInvalidated(bindingId);
  }

  function evict(): void {
    for (const cached of byId.values()) {
      if (byId.size <= deps.capacity * refillShare) return;
      if (!deps.isOpen(cached.bindingId)) forget(cached);
    }
  }

  return {
    bySerial: (serial) => bySerial.get(serial),
    put(binding) {
      const cached = byId.get(binding.bindingId);
      if (cached !== undefined && !isSameRoute(cached, binding)) remove(binding.bindingId);
      if (byId.size >= deps.capacity && !byId.has(binding.bindingId)) evict();
      byId.set(binding.bindingId, binding);
      bySerial.set(binding.serial, binding);
      deps.onRead(binding);
    },
    remove,
    forgetIdle() {
      for (const cached of byId.values()) if (!deps.isOpen(cached.bindingId)) forget(cached);
      return [...byId.keys()];
    },
    size: () => byId.size,
  };
}

function isSameRoute(one: LiveBinding, other: LiveBinding): boolean {
  return (
    one.serial === other.serial &&
    one.hostId === other.hostId &&
    one.expiresAt.getTime() === other.expiresAt.getTime() &&
    one.engine?.host === other.engine?.host &&
    one.engine?.port === other.engine?.port
  );
}
