import type { LiveBinding, LiveBindingsSource } from '../core/ports/live-bindings.ts';
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
  /**
   * Asks the database for the binding of a serial. The cache knows it afterwards, where it is live and the
   * session has not ended meanwhile.
   */
  lookUp(serial: string): Promise<void>;
}

/** A source needs to connect and to ask several things; its own time limits come first. Milliseconds. */
const openTimeoutMs = 15_000;
/** Bindings that are read at once: few enough that the answer never holds up what passes through for long. */
const batchSize = 500;

export function createSession(parts: SessionParts): Session {
  const { source, cache, lease, leaseMs } = parts;
  /** Bindings of which something was heard that has not been read since. */
  const heard = new Set<string>();
  /** Serials that are to be asked for, and who waits for that. */
  const asked = new Map<string, (() => void)[]>();
  let isReading = false;
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
    for (const waiting of asked.values()) for (const tell of waiting) tell();
    asked.clear();
    tellEnd(over);
  }

  const ask = <T>(what: string, promise: Promise<T>) => within(leaseMs, what, promise);

  // One read at a time, applied before the next is begun: so no answer that is older than a revocation can
  // bring a binding back after it was acknowledged. What comes up meanwhile is read together.
  async function readOn(): Promise<void> {
    if (isReading) return;
    isReading = true;
    try {
      while (!isOver() && heard.size + asked.size > 0) {
        await refresh(takeFirst(heard.keys(), (bindingId) => heard.delete(bindingId)));
        await answer();
      }
    } catch (error) {
      fail(error);
    } finally {
      isReading = false;
    }
  }

  /** Reads bindings again, and acknowledges those that are not live any more. */
  async function refresh(bindingIds: readonly string[]): Promise<void> {
    if (bindingIds.length === 0) return;
    const live = await ask('reading bindings', source.read(bindingIds));
    if (isOver()) return;
    const withdrawn = applied(bindingIds, live);
    if (withdrawn.length > 0) await ask('acknowledging revocations', source.acknowledge(withdrawn));
  }

  /** Brings the cache to what was read of these. Returns those of them that are not live. */
  function applied(bindingIds: readonly string[], live: readonly LiveBinding[]): string[] {
    for (const binding of live) cache.put(binding);
    const living = new Set(live.map(({ bindingId }) => bindingId));
    const gone = bindingIds.filter((bindingId) => !living.has(bindingId));
    for (const bindingId of gone) cache.remove(bindingId);
    return gone;
  }

  async function answer(): Promise<void> {
    const waiting: (() => void)[] = [];
    const serials = takeFirst(asked.keys(), (serial) => {
      waiting.push(...(asked.get(serial) ?? []));
      asked.delete(serial);
    });
    if (serials.length === 0) return;
    try {
      const live = await ask('looking up certificates', source.readBySerial(serials));
      if (!isOver()) for (const binding of live) cache.put(binding);
    } finally {
      for (const tell of waiting) tell();
    }
  }

  function changed(bindingId: string): void {
    if (isOver()) return;
    heard.add(bindingId);
    // What is heard while the cache is brought up to date may be newer than what that brings.
    if (upToDate) void readOn();
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
    // Only what has something open must be known before anything is served: all else is looked up when it
    // connects. So this takes as long as there are connections, however many bindings there are.
    const open = new Set(cache.forgetIdle());
    while (open.size > 0) {
      const bindingIds = takeFirst(open.keys(), (bindingId) => open.delete(bindingId));
      const live = await ask('reading bindings', source.read(bindingIds));
      throwIfOver();
      applied(bindingIds, live);
    }
    // Reading may have taken longer than the lease that was taken before it, so a new one is taken. What was
    // heard up to now is read again before anything is served on it.
    const from = lease.now();
    await ask('renewing the lease', source.renewLease(leaseMs));
    upToDate = true;
    await readOn();
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
      new Promise((resolve) => {
        if (isOver()) {
          resolve();
          return;
        }
        asked.set(serial, [...(asked.get(serial) ?? []), resolve]);
        void readOn();
      }),
  };
}

/** The first of them, no more than are read at once; each is given to `take`. */
function takeFirst(names: Iterable<string>, take: (name: string) => void): string[] {
  const taken: string[] = [];
  for (const name of names) {
    if (taken.length === batchSize) break;
    take(name);
    taken.push(name);
  }
  return taken;
}
