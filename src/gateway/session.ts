import type { LiveBinding, LiveBindingsSource } from '../core/live-bindings.ts';
import { within } from './deadline.ts';
import type { Lease } from './lease.ts';
import type { LiveCache } from './live-cache.ts';

export interface SessionParts {
  readonly source: LiveBindingsSource;
  readonly cache: LiveCache;
  readonly lease: Lease;
  readonly leaseMs: number;
  readonly renewEveryMs: number;
}

/** One connection to the source, from its opening to its loss. */
export interface Session {
  /**
   * Opens the source and brings the cache up to date. From then on the lease is renewed and the cache kept
   * true, until {@link ended}.
   * @throws where it can't.
   */
  begin(): Promise<void>;
  /** Resolves with the reason once nothing is certain any more. */
  readonly ended: Promise<Error>;
  /** Ends it, for a reason that was seen elsewhere. */
  fail(reason: unknown): void;
  /** Asks the database for the binding of a serial; the cache knows it afterwards, where it is live. */
  lookUp(serial: string): Promise<void>;
}

/** A source needs to connect and to ask several things; its own time limits come first. Milliseconds. */
const openTimeoutMs = 15_000;

export function createSession(parts: SessionParts): Session {
  const { source, cache, lease, leaseMs } = parts;
  /** Bindings of which something was heard that has not been read since. */
  const heard = new Set<string>();
  let upToDate = false;
  /** Why it is over. */
  let over: Error | undefined;
  const isOver = () => over !== undefined;
  let renewal: NodeJS.Timeout | undefined;
  let tellEnd: (reason: Error) => void = () => undefined;
  const ended = new Promise<Error>((resolve) => {
    tellEnd = resolve;
  });

  function fail(reason: unknown): void {
    if (isOver()) return;
    over = reason instanceof Error ? reason : new Error(String(reason));
    clearTimeout(renewal);
    tellEnd(over);
  }

  const ask = <T>(what: string, promise: Promise<T>) => within(leaseMs, what, promise);

  // What is read is applied in the order in which the reads were begun: so no answer that is older than a
  // revocation can bring a binding back after it was acknowledged.
  let lastTurn: Promise<unknown> = Promise.resolve();
  function inTurn<T>(job: () => Promise<T>): Promise<T> {
    const turn = lastTurn.then(job);
    lastTurn = turn.catch(fail);
    return turn;
  }

  async function refresh(bindingId: string): Promise<void> {
    if (isOver()) return;
    heard.delete(bindingId);
    const binding = await ask('reading a binding', source.read(bindingId));
    if (isOver()) return;
    if (binding !== undefined) {
      cache.put(binding);
      return;
    }
    cache.remove(bindingId);
    await ask('acknowledging a revocation', source.acknowledge(bindingId));
  }

  const refreshInTurn = (bindingId: string) => {
    // A failure has ended the session by then.
    inTurn(() => refresh(bindingId)).catch(() => undefined);
  };

  function changed(bindingId: string): void {
    if (isOver() || heard.has(bindingId)) return;
    heard.add(bindingId);
    // What is heard while everything is being read may be newer than what that brings.
    if (upToDate) refreshInTurn(bindingId);
  }

  async function renew(): Promise<void> {
    const from = lease.now();
    await ask('renewing the lease', source.renewLease(leaseMs));
    // A lease that has run out is not mended by its renewal: something may have been missed in between.
    if (!isOver() && lease.holds()) lease.extend(from);
  }

  function renewLater(): void {
    renewal = setTimeout(() => {
      renew().then(() => {
        if (!isOver()) renewLater();
      }, fail);
    }, parts.renewEveryMs);
  }

  async function begin(): Promise<void> {
    await within(openTimeoutMs, 'connecting', source.open({ changed, lost: fail }));
    await ask('renewing the lease', source.renewLease(leaseMs));
    const all = await ask('reading all bindings', source.readAll());
    throwIfOver();
    cache.replace(all);
    // Reading may have taken longer than the lease that was taken before it, so a new one is taken. What was
    // heard up to now is read again before anything is served on it.
    const from = lease.now();
    await ask('renewing the lease', source.renewLease(leaseMs));
    upToDate = true;
    for (const bindingId of heard) refreshInTurn(bindingId);
    for (let seen; seen !== lastTurn;) {
      seen = lastTurn;
      await seen;
    }
    throwIfOver();
    lease.extend(from);
    renewLater();
  }

  function throwIfOver(): void {
    if (over !== undefined) throw over;
  }

  return {
    ended,
    fail,
    begin: () => Promise.race([begin(), ended.then((reason) => Promise.reject(reason))]),
    lookUp: (serial) =>
      inTurn(async () => {
        if (isOver()) return;
        const binding: LiveBinding | undefined = await ask(
          'looking up a certificate',
          source.readBySerial(serial),
        );
        if (!isOver() && binding !== undefined) cache.put(binding);
      }),
  };
}
