import type { Duplex } from 'node:stream';

/** Bytes that one direction of one connection may have taken and not yet passed on. */
const waitingLimit = 256 * 1024;

/**
 * Passes bytes both ways, as fast as the slower side takes them. An end is passed on as an end, and the
 * other direction goes on: docker sends the end of its input so, and still wants the output. A side that
 * fails, or closes in the middle, takes the other with it.
 * @param mayPass is asked for each piece before it is passed on.
 * @param onPassed is told the number of bytes that went from the client to the engine, and back.
 */
export function relay(
  client: Duplex,
  engine: Duplex,
  mayPass: () => boolean,
  onPassed: (up: number, down: number) => void,
): void {
  copy(client, engine, (bytes) => {
    onPassed(bytes, 0);
  });
  copy(engine, client, (bytes) => {
    onPassed(0, bytes);
  });

  function copy(from: Duplex, to: Duplex, passed: (bytes: number) => void): void {
    from.on('data', (chunk: Buffer) => {
      if (!mayPass()) return;
      passed(chunk.length);
      to.write(chunk);
      // Not by what write() says: one piece of TLS is as long as a stream's own mark, and to stop and go on at
      // each of them costs a quarter of the throughput.
      if (to.writableLength > waitingLimit) from.pause();
    });
    to.on('drain', () => {
      from.resume();
    });
    // It may have ended while nobody listened yet.
    if (from.readableEnded) to.end();
    from.on('end', () => {
      to.end();
    });
    from.on('close', () => {
      // Closed in order, it may still have left bytes that the other side is taking.
      if (!from.readableEnded || !from.writableFinished) to.destroy();
    });
  }
}
