import type { LiveBinding } from '../core/ports/live-bindings.ts';
import type { Clock } from './clock.ts';

/** An admitted connection, from its admission until both of its sides are closed. */
export interface Stream {
  /** Destroys both sides at once. */
  readonly cut: () => void;
}

/** Everything that is open, by binding. */
export interface Streams {
  add(binding: LiveBinding, stream: Stream): void;
  remove(binding: LiveBinding, stream: Stream): void;
  count(bindingId: string): number;
  total(): number;
  /** Cuts what is open under a binding. Returns how many streams that were. */
  cut(bindingId: string): number;
  cutAll(): number;
}

interface Group {
  readonly expiresAt: number;
  readonly members: Set<Stream>;
}

/** Expiries are looked at this often at least, since the wall clock may be set. Milliseconds. */
const longestWaitMs = 60_000;

/** @param parts.onExpired is told when streams were cut because their certificate expired. */
export function createStreams(parts: {
  clock: Clock;
  onExpired: (bindingId: string, streams: number) => void;
}): Streams {
  const groups = new Map<string, Group>();
  let nextExpiry = Infinity;
  let timer: NodeJS.Timeout | undefined;
  let total = 0;

  function watch(): void {
    clearTimeout(timer);
    if (groups.size === 0) {
      nextExpiry = Infinity;
      return;
    }
    const wait = Math.min(nextExpiry - parts.clock.wall(), longestWaitMs);
    timer = setTimeout(cutExpired, Math.max(wait, 1));
  }

  function cutExpired(): void {
    const now = parts.clock.wall();
    nextExpiry = Infinity;
    for (const [bindingId, { expiresAt }] of groups) {
      if (expiresAt <= now) parts.onExpired(bindingId, cut(bindingId));
      else nextExpiry = Math.min(nextExpiry, expiresAt);
    }
    watch();
  }

  function cut(bindingId: string): number {
    const group = groups.get(bindingId);
    if (group === undefined) return 0;
    groups.delete(bindingId);
    total -= group.members.size;
    for (const stream of group.members) stream.cut();
    return group.members.size;
  }

  return {
    add(binding, stream) {
      let group = groups.get(binding.bindingId);
      if (group === undefined) {
        group = { expiresAt: binding.expiresAt.getTime(), members: new Set() };
        groups.set(binding.bindingId, group);
      }
      group.members.add(stream);
      total += 1;
      if (group.expiresAt < nextExpiry) {
        nextExpiry = group.expiresAt;
        watch();
      }
    },
    remove(binding, stream) {
      const group = groups.get(binding.bindingId);
      if (group?.members.delete(stream) !== true) return;
      total -= 1;
      if (group.members.size === 0) groups.delete(binding.bindingId);
      if (total === 0) watch();
    },
    count: (bindingId) => groups.get(bindingId)?.members.size ?? 0,
    total: () => total,
    cut,
    cutAll() {
      const before = total;
      for (const bindingId of [...groups.keys()]) cut(bindingId);
      watch();
      return before;
    },
  };
}
