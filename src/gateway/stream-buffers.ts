/** A stream as far as its buffered bytes matter. */
export interface BufferedStream {
  readonly tenantId: string;
  readonly cut: () => void;
}

/** The bytes that are buffered for all streams together, because the other side has not read them yet. */
export interface StreamBuffers {
  /** The stream has this many bytes buffered now; 0 once everything was read, or the stream was closed. */
  update(stream: BufferedStream, bytes: number): void;
  total(): number;
}

interface Pending {
  bytes: number;
  /** Since when there have always been some. */
  readonly since: number;
}

/** Streams with buffered bytes; those whose reader has been behind for longest come first. */
type Streams = Iterable<readonly [BufferedStream, Pending]>;

/**
 * Limits what readers that read nothing cost. Beyond `limit` bytes, streams are cut until the rest fits: of the tenant that
 * has most buffered, the one whose reader has been behind for longest. Besides these bytes, the kernel holds up to the last values
 * of net.ipv4.tcp_rmem and tcp_wmem for each such stream (tcp(7)), which Node can't limit. So of streams whose reader has been
 * behind for `stalledAfterMs`, those beyond `maxStalled` are cut: of the tenant that has most of them.
 * @param deps.onCut is called for each stream that was cut.
 */
export function createStreamBuffers(deps: {
  limit: number;
  maxStalled: number;
  stalledAfterMs: number;
  onCut: (stream: BufferedStream) => void;
}): StreamBuffers {
  const pending = new Map<BufferedStream, Pending>();
  let total = 0;
  let timer: NodeJS.Timeout | undefined;

  function set(stream: BufferedStream, bytes: number): void {
    const entry = pending.get(stream);
    total += bytes - (entry?.bytes ?? 0);
    if (bytes === 0) pending.delete(stream);
    else if (entry === undefined) pending.set(stream, { bytes, since: performance.now() });
    else entry.bytes = bytes;
  }

  /** Cuts, of the tenant with the greatest sum, the stream that comes first. */
  function cutOne(streams: Streams, weightOf: (entry: Pending) => number): void {
    const tenantId = greatestTenant(streams, weightOf);
    for (const [stream] of streams) {
      if (stream.tenantId !== tenantId) continue;
      set(stream, 0);
      stream.cut();
      deps.onCut(stream);
      return;
    }
  }

  function cutStalled(): void {
    timer = undefined;
    const before = performance.now() - deps.stalledAfterMs;
    const stalled = new Map([...pending].filter(([, { since }]) => since <= before));
    while (stalled.size > deps.maxStalled) {
      cutOne(stalled, () => 1);
      for (const stream of stalled.keys()) if (!pending.has(stream)) stalled.delete(stream);
    }
    watch();
  }

  function watch(): void {
    if (pending.size <= deps.maxStalled || timer !== undefined) return;
    timer = setTimeout(cutStalled, deps.stalledAfterMs / 2).unref();
  }

  return {
    update(stream, bytes) {
      set(stream, bytes);
      while (total > deps.limit && pending.size > 0) cutOne(pending, (entry) => entry.bytes);
      watch();
    },
    total: () => total,
  };
}

function greatestTenant(streams: Streams, weightOf: (entry: Pending) => number): string | undefined {
  const byTenant = new Map<string, number>();
  let greatest: string | undefined;
  for (const [{ tenantId }, entry] of streams) {
    const sum = (byTenant.get(tenantId) ?? 0) + weightOf(entry);
    byTenant.set(tenantId, sum);
    if (greatest === undefined || sum > (byTenant.get(greatest) ?? 0)) greatest = tenantId;
  }
  return greatest;
}
