import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

/** Reads a stream of chunks in pieces of given sizes (big-endian integers). */
export interface ByteReader {
  /** The next byte, which stays unread; undefined at the end of the stream. */
  peek(): Promise<number | undefined>;
  /** The next bytes; valid until the next call. @throws HypervisorError if the stream ends before. */
  bytes(count: number): Promise<Buffer>;
  u8(): Promise<number>;
  u64(): Promise<bigint>;
  /** All that follows. */
  rest(): AsyncGenerator<Buffer>;
}

export function createByteReader(source: AsyncIterable<Buffer>): ByteReader {
  const chunks = source[Symbol.asyncIterator]();
  let buffer: Buffer = Buffer.alloc(0);
  let at = 0;

  /** False if the stream ends before. */
  async function fill(count: number): Promise<boolean> {
    while (buffer.length - at < count) {
      const next = await chunks.next();
      if (next.done === true) return false;
      buffer = at === buffer.length ? next.value : Buffer.concat([buffer.subarray(at), next.value]);
      at = 0;
    }
    return true;
  }

  /** @returns the place in `buffer`. */
  async function take(count: number): Promise<number> {
    if (buffer.length - at < count && !(await fill(count))) {
      throw new HypervisorError('QEMU ended in the middle of its memory');
    }
    at += count;
    return at - count;
  }

  return {
    peek: async () => ((await fill(1)) ? buffer[at] : undefined),
    async bytes(count) {
      const from = await take(count);
      return buffer.subarray(from, from + count);
    },
    async u8() {
      const from = await take(1);
      return buffer.readUInt8(from);
    },
    async u64() {
      const from = await take(8);
      return buffer.readBigUInt64BE(from);
    },
    async *rest() {
      if (at < buffer.length) yield buffer.subarray(at);
      at = buffer.length;
      for (;;) {
        const next = await chunks.next();
        if (next.done === true) return;
        yield next.value;
      }
    },
  };
}
