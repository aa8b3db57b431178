import type { LiveBinding, LiveBindingsSource } from '../core/ports/live-bindings.ts';
import type { Lease } from './lease.ts';
import type { LiveCache } from './live-cache.ts';
import { withTimeout } from '../lib/with-timeout.ts';

export interface SessionDeps {
  readonly source: LiveBindingsSource;
  readonly cache: LiveCache;
  readonly lease: Lease;
  readonly leaseMs: number;
  readonly renewEveryMs: number;
}

/** One connection to the source, from its opening to its loss. */
export interface Session {
  /**
   * Opens the source and brings the cache up to date. From then on the session renews the lease and applies
   * changes to the cache, until {@link ended}.
   * @throws if the source fails.
   */
  begin(): Promise<void>;
  /** Resolves with the reason once the cache can't be trusted any more. */
  readonly ended: Promise<Error>;
  /** Ends the session for a reason that was detected elsewhere. */
  fail(reason: unknown): void;
  /**
   * Reads the binding of a serial from the database. Afterwards the cache contains it if it is live and the
   * session has not ended.
   */
  lookUp(serial: string): Promise<void>;
}

/** Longer than a source's own time limits for connecting and its first queries. Milliseconds. */
const openTimeoutMs = 15_000;
/** Bindings per query: few enough that applying an answer never delays relayed traffic noticeably. */
const batchSize = 500;

/**
 * How a binding ends: the api revokes its row and notifies. A session reads the row again, and since it isn't
 * live removes it from the cache, which cuts its streams. Only then the session acknowledges the revocation to
 * Postgres, and the api answers the unbind once every gateway with a lease has acknowledged.
 */
export function createSession(deps: SessionDeps): Session {
  const { source, cache, lease, leaseMs } = deps;
  /** Bindings whose change was notified and that have not been read since. */
  const changedIds = new Set<string>();
  /** Serials to look up, with the resolvers of the callers that wait for them. */
  const lookUps = new Map<string, (() => void)[]>();
  let isReading = false;
  let isUpToDate = false;
  let failure: Error | undefined;
  const hasEnded = () => failure !== undefined;
  let renewal: NodeJS.Timeout | undefined;
  let resolveEnded: (reason: Error) => void = () => undefined;
  const ended = new Promise<Error>((resolve) => {
    resolveEnded = resolve;
  });

  function fail(reason: unknown): void {
    if (hasEnded()) return;
    failure = reason instanceof Error ? reason : new Error(String(reason));
    clearTimeout(renewal);
    for (const waiting of lookUps.values()) for (const resolve of waiting) resolve();
    lookUps.clear();
    resolveEnded(failure);
  }

  const withinLease = <T>(what: string, promise: Promise<T>) => withTimeout(leaseMs, what, promise);

  // One read at a time, applied before the next one starts: an answer from before a revocation can't bring the
  // binding back after its acknowledgement. Changes that arrive during a read are read together.
  async function readPending(): Promise<void> {
    if (isReading) return;
    isReading = true;
    try {
      while (!hasEnded() && changedIds.size + lookUps.size > 0) {
        await refresh(takeBatch(changedIds.keys(), (bindingId) => changedIds.delete(bindingId)));
        await readSerials();
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
    const live = await withinLease('reading bindings', source.read(bindingIds));
    if (hasEnded()) return;
    const revoked = applyToCache(bindingIds, live);
    if (revoked.length > 0) await withinLease('acknowledging revocations', source.acknowledge(revoked));
  }

  /** @returns the requested bindings that are not live. */
  function applyToCache(bindingIds: readonly string[], live: readonly LiveBinding[]): string[] {
    for (const binding of live) cache.put(binding);
    const liveIds = new Set(live.map(({ bindingId }) => bindingId));
    const revoked = bindingIds.filter((bindingId) => !liveIds.has(bindingId));
    for (const bindingId of revoked) cache.remove(bindingId);
    return revoked;
  }

  async function readSerials(): Promise<void> {
    const waiting: (() => void)[] = [];
    const serials = takeBatch(lookUps.keys(), (serial) => {
      waiting.push(...(lookUps.get(serial) ?? []));
      lookUps.delete(serial);
    });
    if (serials.length === 0) return;
    try {
      const live = await withinLease('looking up certificates', source.readBySerial(serials));
      if (!hasEnded()) for (const binding of live) cache.put(binding);
    } finally {
      for (const resolve of waiting) resolve();
    }
  }

  function changed(bindingId: string): void {
    if (hasEnded()) return;
    changedIds.add(bindingId);
    // Until then begin() is reading; its answer may be older than this change, so it is read afterwards.
    if (isUpToDate) void readPending();
  }

  async function renew(): Promise<void> {
    const from = lease.now();
    // Longer than the lease: the answer may wait for this thread, while another renews the lease.
    await withTimeout(2 * leaseMs, 'renewing the lease', source.renewLease(leaseMs));
    // A lease that ran out is not revived by its renewal: a revocation may have been missed in between.
    if (!hasEnded() && lease.isValid()) lease.extend(from);
  }

  function scheduleRenewal(): void {
    renewal = setTimeout(() => {
      renew().then(() => {
        if (!hasEnded()) scheduleRenewal();
      }, fail);
    }, deps.renewEveryMs);
  }

  async function begin(): Promise<void> {
    await withTimeout(openTimeoutMs, 'connecting', source.open({ changed, lost: fail }));
    await withinLease('taking the lease', source.takeLease(leaseMs));
    // Only bindings with open streams must be known before serving; all others are looked up when they connect.
    // So the duration depends on the number of open connections, not on the number of bindings.
    const open = new Set(cache.forgetIdle());
    while (open.size > 0) {
      const bindingIds = takeBatch(open.keys(), (bindingId) => open.delete(bindingId));
      const live = await withinLease('reading bindings', source.read(bindingIds));
      throwIfEnded();
      applyToCache(bindingIds, live);
    }
    // Reading may have taken longer than the lease from above, so it is taken again. Changes that were notified up to
    // now are read before anything is served on the new lease.
    const from = lease.now();
    const sinceRenewal = await withinLease('taking the lease', source.takeLease(leaseMs));
    isUpToDate = true;
    await readPending();
    throwIfEnded();
    lease.take(from, sinceRenewal);
    scheduleRenewal();
  }

  function throwIfEnded(): void {
    if (failure !== undefined) throw failure;
  }

  return {
    ended,
    fail,
    begin: () => Promise.race([begin(), ended.then((reason) => Promise.reject(reason))]),
    lookUp: (serial) =>
      new Promise((resolve) => {
        if (hasEnded()) {
          resolve();
          return;
        }
        lookUps.set(serial, [...(lookUps.get(serial) ?? []), resolve]);
        void readPending();
      }),
  };
}

/** The first ids, at most {@link batchSize}; each is passed to `take`. */
function takeBatch(ids: Iterable<string>, take: (id: string) => void): string[] {
  const taken: string[] = [];
  for (const id of ids) {
    if (taken.length === batchSize) break;
    take(id);
    taken.push(id);
  }
  return taken;
}
