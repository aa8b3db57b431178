import { createServer, type Socket } from 'node:net';
import type { EngineAddress } from '../../src/core/hypervisor/network.ts';

/** Writes the same text until the other side hangs up. */
function pour(socket: Socket, text: string): void {
  const more = () => {
    while (!socket.destroyed && socket.write(text));
  };
  socket.on('drain', more);
  more();
}

const head = 'HTTP/1.1 200 OK\r\n';
const chunked = `${head}Transfer-Encoding: chunked\r\n\r\n`;
/** `1` is the size of the chunk, `[` its content. */
const oneByteChunks = '1\r\n[\r\n'.repeat(8_192);

/** What a tenant that is root in its guest may run in place of its Docker engine, by what it answers to any request. */
export const hostileAnswers = {
  'another protocol': (socket: Socket) =>
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n'),
  'interim answers without end': (socket: Socket) => {
    pour(socket, 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(512));
  },
  'nothing at all': () => undefined,
  'nothing, and a hang-up': (socket: Socket) => socket.end(),
  'a reset': (socket: Socket) => socket.resetAndDestroy(),
  'a header byte now and then': (socket: Socket) => {
    socket.write(`${head}X: `);
    const drip = setInterval(() => socket.write('a'), 20);
    socket.once('close', () => {
      clearInterval(drip);
    });
  },
  'a header without end': (socket: Socket) => {
    socket.write(`${head}X: `);
    pour(socket, 'a'.repeat(65_536));
  },
  'headers without end': (socket: Socket) => {
    socket.write(head);
    pour(socket, 'X: a\r\n'.repeat(4_096));
  },
  'one-byte chunks without end': (socket: Socket) => {
    socket.write(chunked);
    pour(socket, oneByteChunks);
  },
  'a chunk extension without end': (socket: Socket) => {
    socket.write(`${chunked}1;`);
    pour(socket, 'a'.repeat(65_536));
  },
  'trailers without end': (socket: Socket) => {
    socket.write(`${chunked}2\r\n[]\r\n0\r\n`);
    pour(socket, 'X: a\r\n'.repeat(4_096));
  },
  'a body without end': (socket: Socket) => {
    socket.write(`${head}\r\n`);
    pour(socket, '[{},'.repeat(16_384));
  },
  'a body that is shorter than its length': (socket: Socket) =>
    socket.end(`${head}Content-Length: 100\r\n\r\n[]`),
  'a body that never comes': (socket: Socket) => socket.write(`${head}Content-Length: 100\r\n\r\n`),
} satisfies Record<string, (socket: Socket) => unknown>;

export type HostileAnswer = keyof typeof hostileAnswers;

/**
 * A TCP server that answers in this way once the head of a request has arrived.
 * @param options.port default: a free one. @param options.except the honest answer to a request; undefined if it has none.
 */
export async function makeHostileEngine(
  answer: HostileAnswer,
  {
    host = '0.0.0.0',
    port = 0,
    except = () => undefined,
  }: {
    readonly host?: string;
    readonly port?: number;
    readonly except?: (request: string) => string | undefined;
  } = {},
): Promise<EngineAddress & { readonly requests: () => number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  let requests = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
    socket.once('data', (request: Buffer) => {
      requests += 1;
      const honest = except(request.toString('latin1'));
      if (honest === undefined) hostileAnswers[answer](socket);
      else socket.end(honest);
      socket.resume();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('it does not listen');
  return {
    host: '127.0.0.1',
    port: address.port,
    requests: () => requests,
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
