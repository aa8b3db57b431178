/** The two clocks that decide how long something may be served. Milliseconds. */
export interface Clock {
  /** Never goes backwards, but may not advance while the node is suspended. */
  monotonic(): number;
  /** Unix time. It can be set, in either direction. */
  wall(): number;
}

export const systemClock: Clock = { monotonic: () => performance.now(), wall: () => Date.now() };
