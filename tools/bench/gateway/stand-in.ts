import net from 'node:net';

/**
 * Replaces an engine, as a separate process: `GET /_ping`, `GET /events`, which stays open, and `POST
 * /images/load`, whose body goes nowhere. A guest under emulation is slower than any gateway, and would hide what
 * a gateway costs. Node's own HTTP server would, too, so this is as little of HTTP/1.1 as that takes.
 */
const ok = (body: string) => `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

const server = net.createServer({ noDelay: true }, (socket) => {
  let head = '';
  /** Bytes of a body that are still to come. */
  let left = 0;

  function answerAll(): void {
    for (let end; (end = head.indexOf('\r\n\r\n')) >= 0;) {
      const request = head.slice(0, end);
      head = head.slice(end + 4);
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(request)?.[1] ?? 0);
      if (request.startsWith('GET /events')) {
        socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n');
      } else if (length > 0) {
        left = length - head.length;
        head = '';
        if (left <= 0) socket.write(ok('loaded'));
      } else {
        socket.write(ok('OK'));
      }
    }
  }

  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => {
    if (left > 0) {
      left -= chunk.length;
      if (left <= 0) socket.write(ok('loaded'));
      return;
    }
    head += chunk.toString('latin1');
    answerAll();
  });
});

server.listen(0, '127.0.0.1', () => {
  process.send?.((server.address() as net.AddressInfo).port);
});
process.once('disconnect', () => process.exit());
