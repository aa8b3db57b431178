/** Milliseconds that pass on both clocks: the monotonic one doesn't advance while the node is suspended. */
interface Moment {
  readonly monotonic: bigint;
  readonly wall: bigint;
}

/** The present, on clocks that all threads share. To be read before a renewal is sent. */
export const leaseMoment = (): Moment => ({
  monotonic: process.hrtime.bigint() / 1_000_000n,
  wall: BigInt(Date.now()),
});

/** What the gateway's thread and the thread that renews its lease tell each other about one registration. */
export class SharedLease {
  readonly buffer: SharedArrayBuffer;
  /** Renewal: monotonic, wall. Sign of life: monotonic, wall. 0: none yet. */
  readonly #moments: BigInt64Array;

  constructor(buffer = new SharedArrayBuffer(32)) {
    this.buffer = buffer;
    this.#moments = new BigInt64Array(buffer);
  }

  /** The thread beside the gateway's has renewed the lease, from this moment on. */
  renewed(at: Moment): void {
    this.#set(0, at);
  }

  /** @returns milliseconds since that thread last renewed the lease; Infinity if it never did. */
  sinceRenewal(): number {
    return this.#since(0);
  }

  /** The gateway's thread has renewed the lease itself, and so proved that it works and hears notifications. */
  alive(at: Moment): void {
    this.#set(2, at);
  }

  /** @returns milliseconds since the last proof; Infinity if there was none. */
  sinceAlive(): number {
    return this.#since(2);
  }

  /** @returns milliseconds since either thread last renewed the lease; Infinity if none did. */
  sinceEither(): number {
    return Math.min(this.sinceRenewal(), this.sinceAlive());
  }

  #set(index: number, { monotonic, wall }: Moment): void {
    Atomics.store(this.#moments, index, monotonic);
    Atomics.store(this.#moments, index + 1, wall);
  }

  /** By the clock that says more: a half-written pair then counts as the older moment. */
  #since(index: number): number {
    const now = leaseMoment();
    const [monotonic, wall] = [Atomics.load(this.#moments, index), Atomics.load(this.#moments, index + 1)];
    if (monotonic === 0n || wall === 0n) return Infinity;
    return Math.max(Number(now.monotonic - monotonic), Number(now.wall - wall));
  }
}
