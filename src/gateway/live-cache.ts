import type { LiveBinding } from '../core/live-bindings.ts';

/** What the gateway knows of live bindings, for a look-up on every connection. */
export interface LiveCache {
  bySerial(serial: string): LiveBinding | undefined;
  /** The binding stands as it was read. */
  put(binding: LiveBinding): void;
  /** The binding is not live any more, or never was. */
  remove(bindingId: string): void;
  /** These are all that are live. */
  replace(bindings: readonly LiveBinding[]): void;
  size(): number;
}

/**
 * @param onWithdrawn is called for each binding that was known and is gone or leads elsewhere now: what is
 * open under it must be cut. The cache has forgotten it by then.
 */
export function createLiveCache(onWithdrawn: (bindingId: string) => void): LiveCache {
  let serials = new Map<string, LiveBinding>();
  let ids = new Map<string, LiveBinding>();

  function remove(bindingId: string): void {
    const known = ids.get(bindingId);
    if (known === undefined) return;
    ids.delete(bindingId);
    serials.delete(known.serial);
    onWithdrawn(bindingId);
  }

  return {
    bySerial: (serial) => serials.get(serial),
    put(binding) {
      const known = ids.get(binding.bindingId);
      if (known !== undefined && !leadsToTheSame(known, binding)) remove(binding.bindingId);
      ids.set(binding.bindingId, binding);
      serials.set(binding.serial, binding);
    },
    remove,
    replace(bindings) {
      const before = ids;
      ids = new Map(bindings.map((binding) => [binding.bindingId, binding]));
      serials = new Map(bindings.map((binding) => [binding.serial, binding]));
      for (const known of before.values()) {
        const now = ids.get(known.bindingId);
        if (now === undefined || !leadsToTheSame(known, now)) onWithdrawn(known.bindingId);
      }
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
