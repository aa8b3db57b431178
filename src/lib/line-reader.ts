import { createBoundedBuffer } from './bounded-buffer.ts';

/** More was received than a peer may send. */
export class TooMuchDataError extends Error {
  override readonly name = 'TooMuchDataError';
}

const lineFeed = 0x0a;

/**
 * Splits the chunks that a peer sends into lines, within limits in bytes. A line may span several chunks.
 * @param limits.line longest line; `limits.total` longest sum of all lines.
 * @returns a function that takes a chunk and returns the lines that it ends.
 * @throws TooMuchDataError from that function, if a limit is exceeded.
 */
export function createLineReader(limits: {
  readonly line: number;
  readonly total: number;
}): (chunk: Buffer) => readonly string[] {
  const pending = createBoundedBuffer(limits.line);
  let total = 0;
  const add = (part: Buffer) => {
    if (!pending.append(part)) throw new TooMuchDataError(`a line of more than ${limits.line} bytes`);
  };
  return (chunk) => {
    total += chunk.length;
    if (total > limits.total) throw new TooMuchDataError(`more than ${limits.total} bytes`);
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(lineFeed); end >= 0; end = chunk.indexOf(lineFeed, start)) {
      add(chunk.subarray(start, end));
      lines.push(pending.content().toString('utf8'));
      pending.clear();
      start = end + 1;
    }
    add(chunk.subarray(start));
    return lines;
  };
}
