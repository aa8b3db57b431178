import type { LiveBinding } from '../core/ports/live-bindings.ts';
import type { Clock } from './clock.ts';

/** An admitted connection, from its admission until both of its sides are closed. */
export interface Stream {
  /** Destroys both sides at once. */
  readonly cut: () => void;
  /** The power of its host was read. */
  readonly setAsleep: (asleep: boolean) => void;
}

/** All open streams, by binding. */
export interface Streams {
  add(binding: LiveBinding, stream: Stream): void;
  remove(binding: LiveBinding, stream: Stream): void;
  count(bindingId: string): number;
  total(): number;
  /** Tells the open streams of a binding whether its host is asleep. */
  setAsleep(bindingId: string, asleep: boolean): void;
  /** Cuts the open streams of a binding. Returns their number. */
  cut(bindingId: string): number;
  cutAll(): number;
}

interface Group {
  readonly expiresAt: number;
  readonly members: Set<Stream>;
}

/** Expiries are checked at least this often, since the wall clock can be set. Milliseconds. */
const longestWaitMs = 60_000;

/** @param deps.onExpired is called after streams were cut because their certificate expired. */
export function createStreams(deps: {
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
    const wait = Math.min(nextExpiry - deps.clock.wall(), longestWaitMs);
    timer = setTimeout(cutExpired, Math.max(wait, 1));
  }

  function cutExpired(): void {
    const now = deps.clock.wall();
    nextExpiry = Infinity;
    for (const [bindingId, { expiresAt }] of groups) {
      if (expiresAt <= now) deps.onExpired(bindingId, cut(bindingId));
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
    setAsleep(bindingId, asleep) {
      for (const stream of groups.get(bindingId)?.members ?? []) stream.setAsleep(asleep);
    },
    cut,
    cutAll() {
      const before = total;
      for (const bindingId of [...groups.keys()]) cut(bindingId);
      watch();
      return before;
    },
  };
}
