import type {
  BindingEvents,
  LiveBinding,
  LiveBindingsSource,
} from '../../../src/core/ports/live-bindings.ts';

type Call = Exclude<keyof LiveBindingsSource, symbol>;

/** A source whose content a test sets, and which can fail, hang and be slow like a real one. */
export class FakeSource implements LiveBindingsSource {
  /** What is live in the database. */
  readonly live = new Map<string, LiveBinding>();
  /** Every call in order, such as `read 8f14`. */
  readonly calls: string[] = [];
  readonly acknowledged: string[] = [];
  /** Runs at the moment of an acknowledgement. */
  onAcknowledge: (bindingId: string) => void = () => undefined;
  /** Number of leases that were taken and not released. */
  leases = 0;
  #events: BindingEvents | undefined;
  readonly #delays = new Map<Call, Promise<void>>();
  readonly #failures = new Map<Call, Error>();

  /** Delays the answers to these calls, as determined when they are called, until the returned function is called. */
  delay(call: Call): () => void {
    let release: () => void = () => undefined;
    this.#delays.set(
      call,
      new Promise((resolve) => {
        release = resolve;
      }),
    );
    return () => {
      this.#delays.delete(call);
      release();
    };
  }

  /** These calls fail until the returned function is called. */
  fail(call: Call, error = new Error(`${call} failed`)): () => void {
    this.#failures.set(call, error);
    return () => this.#failures.delete(call);
  }

  /** Stores a binding, and notifies. */
  put(binding: LiveBinding): void {
    this.live.set(binding.bindingId, binding);
    this.#events?.changed(binding.bindingId);
  }

  revoke(bindingId: string): void {
    this.live.delete(bindingId);
    this.#events?.changed(bindingId);
  }

  /** Notifies without a change. */
  notifyAgain(bindingId: string): void {
    this.#events?.changed(bindingId);
  }

  /** The connection breaks: no notification arrives until it is opened again. */
  lose(reason = new Error('connection terminated unexpectedly')): void {
    const events = this.#events;
    this.#events = undefined;
    events?.lost(reason);
  }

  countOf(call: string): number {
    return this.calls.filter((made) => made === call || made.startsWith(`${call} `)).length;
  }

  open = (events: BindingEvents): Promise<void> =>
    this.#answer('open', '', () => {
      this.#events = events;
    });

  close = (): Promise<void> =>
    this.#answer('close', '', () => {
      this.#events = undefined;
    });

  read = (bindingIds: readonly string[]): Promise<readonly LiveBinding[]> =>
    this.#answer('read', bindingIds.join(), () =>
      bindingIds.flatMap((bindingId) => this.live.get(bindingId) ?? []),
    );

  readBySerial = (serials: readonly string[]): Promise<readonly LiveBinding[]> =>
    this.#answer('readBySerial', serials.join(), () =>
      [...this.live.values()].filter(({ serial }) => serials.includes(serial)),
    );

  /** Hosts whose wake was requested. */
  readonly woken: string[] = [];

  wake = (hostId: string): Promise<void> =>
    this.#answer('wake', hostId, () => {
      this.woken.push(hostId);
    });

  /** Milliseconds since another thread renewed each lease, by its number: 0 is the first that was taken. */
  sinceRenewal: (lease: number) => number = () => Infinity;
  #taken = 0;

  takeLease = (): Promise<() => number> =>
    this.#answer('takeLease', '', () => {
      this.leases = 1;
      const number = this.#taken++;
      return () => this.sinceRenewal(number);
    });

  renewLease = (): Promise<void> => this.#answer('renewLease', '', () => undefined);

  acknowledge = (bindingIds: readonly string[]): Promise<void> =>
    this.#answer('acknowledge', bindingIds.join(), () => {
      for (const bindingId of bindingIds) this.onAcknowledge(bindingId);
      this.acknowledged.push(...bindingIds);
    });

  releaseLease = (): Promise<void> =>
    this.#answer('releaseLease', '', () => {
      this.leases = 0;
    });

  async #answer<T>(call: Call, argument: string, ask: () => T): Promise<T> {
    this.calls.push(argument === '' ? call : `${call} ${argument}`);
    const failure = this.#failures.get(call);
    if (failure !== undefined) throw failure;
    // As in a database, the answer is determined at the time of the query, however late it arrives.
    const answer = ask();
    await this.#delays.get(call);
    return answer;
  }
}
