import type { Clock } from './clock.ts';

/** A moment on both clocks. */
export interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}

export interface Lease {
  /**
   * True while what is known may be acted on. Whoever asks first after it ran out sets off what follows from
   * that. Asked for every piece of data, so it must be cheap.
   */
  holds(): boolean;
  /** The present moment: to be taken before a renewal is sent. */
  now(): Moment;
  /** The lease was taken or renewed by a call that was begun at `from`. */
  extend(from: Moment): void;
  /** Gives it up, with nothing following from that. */
  drop(): void;
}

/** Part of the lease that is kept back, so that all is cut here before others count on it. */
const margin = 0.1;

/**
 * This gateway's lease, as it counts it itself: from before each renewal was sent, so that it always ends
 * here before it ends in the database. The wall clock counts as well, since a machine that was asleep or
 * suspended wakes with a monotonic clock that has stood still.
 * @param parts.onLost is called once each time it runs out.
 */
export function createLease(parts: { clock: Clock; leaseMs: number; onLost: () => void }): Lease {
  const { clock } = parts;
  const length = parts.leaseMs * (1 - margin);
  let from: Moment | undefined;
  let timer: NodeJS.Timeout | undefined;

  const now = (): Moment => ({ monotonic: clock.monotonic(), wall: clock.wall() });
  const leftOf = (start: Moment) =>
    length - Math.max(clock.monotonic() - start.monotonic, clock.wall() - start.wall);

  function holds(): boolean {
    if (from === undefined) return false;
    if (leftOf(from) > 0) return true;
    drop();
    parts.onLost();
    return false;
  }

  function watch(): void {
    clearTimeout(timer);
    if (from === undefined) return;
    // At least a millisecond: timers count whole ones, and may fire a fraction too early.
    const wait = Math.max(Math.ceil(leftOf(from)), 1);
    timer = setTimeout(() => {
      if (holds()) watch();
    }, wait);
  }

  function drop(): void {
    from = undefined;
    clearTimeout(timer);
  }

  return {
    now,
    holds,
    extend(renewedFrom) {
      from = renewedFrom;
      watch();
    },
    drop,
  };
}
