import { usablePartOfLease } from '../core/ports/live-bindings.ts';
import type { Clock } from './clock.ts';

/** A moment on both clocks. */
export interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}

export interface Lease {
  /**
   * True while the cache may be acted on. The first call after the lease ran out also triggers `onLost`.
   * Called for every chunk of data, so it must be cheap.
   */
  isValid(): boolean;
  /** The present moment; to be read before a renewal is sent. */
  now(): Moment;
  /**
   * The lease was taken by a call that started at `from`.
   * @param sinceRenewal milliseconds since another thread renewed it, which counts while this thread is busy.
   */
  take(from: Moment, sinceRenewal: () => number): void;
  /** The lease was renewed by a call that started at `from`. */
  extend(from: Moment): void;
  /** Ends the lease without calling `onLost`. */
  drop(): void;
}

/**
 * This gateway's lease by its own clocks, counted from before each renewal was sent, so that it always ends
 * here before it ends in the database. The wall clock counts as well: the monotonic clock doesn't advance
 * while the node is suspended.
 * @param deps.onLost is called once each time the lease runs out.
 */
export function createLease(deps: { clock: Clock; leaseMs: number; onLost: () => void }): Lease {
  const { clock } = deps;
  const length = deps.leaseMs * usablePartOfLease;
  let from: Moment | undefined;
  let sinceRenewal = () => Infinity;
  let timer: NodeJS.Timeout | undefined;

  const now = (): Moment => ({ monotonic: clock.monotonic(), wall: clock.wall() });
  const remainingMs = (start: Moment) => {
    const own = length - Math.max(clock.monotonic() - start.monotonic, clock.wall() - start.wall);
    return own > 0 ? own : Math.max(own, length - sinceRenewal());
  };

  function isValid(): boolean {
    if (from === undefined) return false;
    if (remainingMs(from) > 0) return true;
    drop();
    deps.onLost();
    return false;
  }

  function watch(): void {
    clearTimeout(timer);
    if (from === undefined) return;
    // At least a millisecond: timers count whole ones, and may fire a fraction too early.
    const wait = Math.max(Math.ceil(remainingMs(from)), 1);
    timer = setTimeout(() => {
      if (isValid()) watch();
    }, wait);
  }

  function drop(): void {
    from = undefined;
    clearTimeout(timer);
  }

  return {
    now,
    isValid,
    take(takenFrom, since) {
      from = takenFrom;
      sinceRenewal = since;
      watch();
    },
    extend(renewedFrom) {
      from = renewedFrom;
      watch();
    },
    drop,
  };
}
