/** Bytes that arrive in chunks of any size. */
export interface BoundedBuffer {
  /** False, and nothing is added, if the content would be longer than the limit. */
  append(chunk: Uint8Array): boolean;
  /** What was added since the last `clear`; valid until the next call of `append` or `clear`. */
  content(): Buffer;
  clear(): void;
}

const firstCapacity = 4_096;

/**
 * Copies chunks into one buffer that grows as needed, so that an answer takes memory by its length, not by the number
 * of its chunks: each chunk that is kept as such would keep a buffer of up to 64 KiB.
 * @param limit longest content, in bytes.
 */
export function createBoundedBuffer(limit: number): BoundedBuffer {
  let bytes = Buffer.allocUnsafeSlow(0);
  let length = 0;
  return {
    append(chunk) {
      const needed = length + chunk.length;
      if (needed > limit) return false;
      if (needed > bytes.length) {
        const grown = Buffer.allocUnsafeSlow(
          Math.min(limit, Math.max(needed, bytes.length * 2, firstCapacity)),
        );
        bytes.copy(grown, 0, 0, length);
        bytes = grown;
      }
      bytes.set(chunk, length);
      length = needed;
      return true;
    },
    content: () => bytes.subarray(0, length),
    clear() {
      length = 0;
    },
  };
}
