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
export interface Script {
  readonly first?: string;
  /** Sent again and again after it: about {@link burstBytes} at once, or one every {@link dripMs}. */
  readonly forever?: string;
  readonly drips?: boolean;
  /** How it hangs up; otherwise it waits for the other side to do so. */
  readonly end?: 'close' | 'reset';
}

export const dripMs = 20;
export const burstBytes = 49_152;

/** What a tenant that is root in its guest may run in place of its Docker engine, by what it answers to any request. */
export const hostileAnswers = {
  'another protocol': {
    first: 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
  },
  'interim answers without end': { forever: 'HTTP/1.1 103 Early Hints\r\n\r\n' },
  'nothing at all': {},
  'nothing, and a hang-up': { end: 'close' },
  'a reset': { end: 'reset' },
  'a header byte now and then': { first: `${head}X: `, forever: 'a', drips: true },
  'a header without end': { first: `${head}X: `, forever: 'a' },
  'headers without end': { first: head, forever: 'X: a\r\n' },
  // `1` is the size of the chunk, `[` its content.
  'one-byte chunks without end': { first: chunked, forever: '1\r\n[\r\n' },
  'a chunk extension without end': { first: `${chunked}1;`, forever: 'a' },
  'trailers without end': { first: `${chunked}2\r\n[]\r\n0\r\n`, forever: 'X: a\r\n' },
  'a body without end': { first: `${head}\r\n`, forever: '[{},' },
  'a body that is shorter than its length': {
    first: `${head}Content-Length: 100\r\n\r\n[]`,
    end: 'close',
  },
  'a body that never comes': { first: `${head}Content-Length: 100\r\n\r\n` },
} as const satisfies Record<string, Script>;

function answerBy({ first, forever, drips, end }: Script, socket: Socket): void {
  if (first !== undefined) socket.write(first);
  if (forever !== undefined && drips) {
    const drip = setInterval(() => socket.write(forever), dripMs);
    socket.once('close', () => {
      clearInterval(drip);
    });
  } else if (forever !== undefined) pour(socket, forever.repeat(burstBytes / forever.length));
  if (end === 'close') socket.end();
  if (end === 'reset') socket.resetAndDestroy();
}

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
      if (honest === undefined) answerBy(hostileAnswers[answer], socket);
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
