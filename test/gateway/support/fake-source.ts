import type {
  BindingEvents,
  LiveBinding,
  LiveBindingsSource,
} from '../../../src/core/ports/live-bindings.ts';

type Call = Exclude<keyof LiveBindingsSource, symbol>;

/** A source whose truth a test sets, and which can fail, hang and be slow like a real one. */
export class FakeSource implements LiveBindingsSource {
  /** What is live in the database. */
  readonly live = new Map<string, LiveBinding>();
  /** Every call in the order in which it was made, such as `read 8f14`. */
  readonly calls: string[] = [];
  readonly acknowledged: string[] = [];
  /** Run at the moment of an acknowledgement: what stands then? */
  onAcknowledge: (bindingId: string) => void = () => undefined;
  /** Number of leases that were taken and not given back. */
  leases = 0;
  #events: BindingEvents | undefined;
  readonly #holds = new Map<Call, Promise<void>>();
  readonly #failures = new Map<Call, Error>();

  /** Answers to these calls are held back, as they stand when asked, until what is returned is called. */
  hold(call: Call): () => void {
    let release: () => void = () => undefined;
    this.#holds.set(
      call,
      new Promise((resolve) => {
        release = resolve;
      }),
    );
    return () => {
      this.#holds.delete(call);
      release();
    };
  }

  /** These calls fail until what is returned is called. */
  fail(call: Call, error = new Error(`${call} failed`)): () => void {
    this.#failures.set(call, error);
    return () => this.#failures.delete(call);
  }

  /** Puts a binding on record, and tells of it. */
  put(binding: LiveBinding): void {
    this.live.set(binding.bindingId, binding);
    this.#events?.changed(binding.bindingId);
  }

  revoke(bindingId: string): void {
    this.live.delete(bindingId);
    this.#events?.changed(bindingId);
  }

  /** The same event again, with nothing changed. */
  tell(bindingId: string): void {
    this.#events?.changed(bindingId);
  }

  /** The connection breaks: nothing is heard until it is opened again. */
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

  /** Hosts that were asked to be woken. */
  readonly woken: string[] = [];

  wake = (hostId: string): Promise<void> =>
    this.#answer('wake', hostId, () => {
      this.woken.push(hostId);
    });

  renewLease = (): Promise<void> =>
    this.#answer('renewLease', '', () => {
      this.leases = 1;
    });

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
    // As in a database, the answer is settled when it is asked for, however late it arrives.
    const answer = ask();
    await this.#holds.get(call);
    return answer;
  }
}
