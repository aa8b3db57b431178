/** The two clocks that decide how long something may be served. Milliseconds. */
export interface Clock {
  /** Never goes backwards, but may stand still while the whole machine sleeps. */
  monotonic(): number;
  /** Unix time. It may be set, in either direction. */
  wall(): number;
}

export const systemClock: Clock = { monotonic: () => performance.now(), wall: () => Date.now() };
