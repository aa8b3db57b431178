import type { LiveBinding } from '../core/ports/live-bindings.ts';

/** The live bindings that the gateway has had to do with, for a look-up on every connection. */
export interface LiveCache {
  bySerial(serial: string): LiveBinding | undefined;
  /** The binding stands as it was read. */
  put(binding: LiveBinding): void;
  /** The binding is not live any more, or never was. */
  remove(bindingId: string): void;
  /** Forgets every binding that has nothing open. Returns the ids of those that are left. */
  forgetIdle(): readonly string[];
  size(): number;
}

/** Share of the capacity that is filled again after room was made: so room is rarely made, and much at once. */
const refillShare = 0.9;

/**
 * @param parts.capacity most bindings that are held. Those that have something open are held all the same.
 * @param parts.isOpen whether anything is open under a binding. Such a one is never forgotten of the cache's
 * own accord: what is not known can't be withdrawn.
 * @param parts.onWithdrawn is called for each binding that was known and is gone or leads elsewhere now: what
 * is open under it must be cut. The cache has forgotten it by then.
 * @param parts.onRead is given each binding as it stands now.
 */
export function createLiveCache(parts: {
  capacity: number;
  isOpen: (bindingId: string) => boolean;
  onWithdrawn: (bindingId: string) => void;
  onRead: (binding: LiveBinding) => void;
}): LiveCache {
  const serials = new Map<string, LiveBinding>();
  /** In the order in which they were first read. */
  const ids = new Map<string, LiveBinding>();

  function forget(known: LiveBinding): void {
    ids.delete(known.bindingId);
    serials.delete(known.serial);
  }

  function remove(bindingId: string): void {
    const known = ids.get(bindingId);
    if (known === undefined) return;
    forget(known);
    parts.onWithdrawn(bindingId);
  }

  function makeRoom(): void {
    for (const known of ids.values()) {
      if (ids.size <= parts.capacity * refillShare) return;
      if (!parts.isOpen(known.bindingId)) forget(known);
    }
  }

  return {
    bySerial: (serial) => serials.get(serial),
    put(binding) {
      const known = ids.get(binding.bindingId);
      if (known !== undefined && !leadsToTheSame(known, binding)) remove(binding.bindingId);
      if (ids.size >= parts.capacity && !ids.has(binding.bindingId)) makeRoom();
      ids.set(binding.bindingId, binding);
      serials.set(binding.serial, binding);
      parts.onRead(binding);
    },
    remove,
    forgetIdle() {
      for (const known of ids.values()) if (!parts.isOpen(known.bindingId)) forget(known);
      return [...ids.keys()];
    },
    size: () => ids.size,
  };
}

function leadsToTheSame(one: LiveBinding, other: LiveBinding): boolean {
  return (
    one.serial === other.serial &&
    one.hostId === other.hostId &&
    one.expiresAt.getTime() === other.expiresAt.getTime() &&
    one.engine?.host === other.engine?.host &&
    one.engine?.port === other.engine?.port
  );
}
