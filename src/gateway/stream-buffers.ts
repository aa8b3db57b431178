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
}

/**
 * Beyond `limit` bytes, streams are cut until the rest fits: of the tenant that has most buffered, the one whose
 * reader has been behind for longest.
 * @param deps.onCut is called for each stream that was cut.
 */
export function createStreamBuffers(deps: {
  limit: number;
  onCut: (stream: BufferedStream) => void;
}): StreamBuffers {
  /** Streams with buffered bytes; those whose reader has been behind for longest come first. */
  const pending = new Map<BufferedStream, Pending>();
  let total = 0;

  function set(stream: BufferedStream, bytes: number): void {
    const entry = pending.get(stream);
    total += bytes - (entry?.bytes ?? 0);
    if (bytes === 0) pending.delete(stream);
    else if (entry === undefined) pending.set(stream, { bytes });
    else entry.bytes = bytes;
  }

  function largestTenant(): string | undefined {
    const byTenant = new Map<string, number>();
    let largest: string | undefined;
    for (const [{ tenantId }, { bytes }] of pending) {
      const sum = (byTenant.get(tenantId) ?? 0) + bytes;
      byTenant.set(tenantId, sum);
      if (sum > (byTenant.get(largest ?? tenantId) ?? 0) || largest === undefined) largest = tenantId;
    }
    return largest;
  }

  function cutOne(): void {
    const tenantId = largestTenant();
    for (const stream of pending.keys()) {
      if (stream.tenantId !== tenantId) continue;
      set(stream, 0);
      stream.cut();
      deps.onCut(stream);
      return;
    }
  }

  return {
    update(stream, bytes) {
      set(stream, bytes);
      while (total > deps.limit && pending.size > 0) cutOne();
    },
    total: () => total,
  };
}
