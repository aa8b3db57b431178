import type { Duplex } from 'node:stream';

/**
 * Passes bytes both ways, at the pace of the slower side. The end of one direction is passed on as an end while
 * the other direction continues: docker ends its input this way and still reads the output. If one side fails
 * or closes early, the other is destroyed.
 * @param deps.bufferLimit bytes that may be buffered for one direction before its sender is paused.
 * @param deps.mayPass is called for each chunk before it is passed on.
 * @param deps.onPassed receives the number of bytes that went from client to engine, and from engine to client.
 * @param deps.onBuffered receives the number of bytes that are buffered for both sides, when it changes.
 * @param deps.endEngine is called at the end of the client's input, to end the engine's.
 */
export function relay(
  client: Duplex,
  engine: Duplex,
  deps: {
    bufferLimit: number;
    mayPass: () => boolean;
    onPassed: (up: number, down: number) => void;
    onBuffered: (bytes: number) => void;
    endEngine: () => void;
  },
): void {
  const { bufferLimit, mayPass, onPassed } = deps;
  let reported = 0;
  const report = () => {
    const bytes = client.writableLength + engine.writableLength;
    if (bytes !== reported) deps.onBuffered((reported = bytes));
  };
  copy(client, engine, {
    passed(bytes) {
      onPassed(bytes, 0);
    },
    end: deps.endEngine,
  });
  copy(engine, client, {
    passed(bytes) {
      onPassed(0, bytes);
    },
    end: () => client.end(),
  });

  function copy(
    from: Duplex,
    to: Duplex,
    { passed, end }: { passed: (bytes: number) => void; end: () => void },
  ): void {
    from.on('data', (chunk: Buffer) => {
      if (!mayPass()) return;
      passed(chunk.length);
      to.write(chunk);
      // write()'s return value isn't used: one TLS record fills a stream's own high-water mark, and pausing
      // after each record costs a quarter of the throughput.
      if (to.writableLength > bufferLimit) from.pause();
      report();
    });
    to.on('drain', () => {
      from.resume();
      report();
    });
    // It may have ended before the listener below was added.
    if (from.readableEnded) end();
    from.on('end', end);
    from.on('close', () => {
      // After an orderly close, bytes may still be buffered for the other side.
      if (!from.readableEnded || !from.writableFinished) to.destroy();
    });
  }
}
