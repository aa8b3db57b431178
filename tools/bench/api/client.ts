import { connect, type Socket } from 'node:net';

export interface Answer {
  readonly status: number;
  readonly body: string;
}

/** One kept-alive connection to the OSB API, which carries one request at a time. */
export interface Connection {
  /** @param path with query. */
  ask(method: string, path: string, body?: object): Promise<Answer>;
  close(): void;
}

/**
 * A connection, opened when it is needed: the api closes those that are silent for long. Not `node:http`: its
 * client costs as much as a server, and the load generator shares its core with Postgres. Enough of HTTP/1.1 for
 * answers of Node's own server, which all have a Content-Length.
 */
export function createConnection(port: number, user: { username: string; password: string }): Connection {
  const authorization = Buffer.from(`${user.username}:${user.password}`).toString('base64');
  const head = `Host: 127.0.0.1\r\nAuthorization: Basic ${authorization}\r\nX-Broker-API-Version: 2.17\r\n`;
  let open: Socket | undefined;
  let received = '';
  let waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void } | undefined;

  function hear(text: string): void {
    received += text;
    const end = received.indexOf('\r\n\r\n');
    if (end < 0) return;
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(received)?.[1] ?? 0);
    if (received.length < end + 4 + length) return;
    const answer = { status: Number(received.slice(9, 12)), body: received.slice(end + 4, end + 4 + length) };
    received = received.slice(end + 4 + length);
    const { resolve } = waiting ?? {};
    waiting = undefined;
    resolve?.(answer);
  }

  function connected(): Socket {
    if (open?.writable === true) return open;
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    const lose = (error?: Error) => {
      waiting?.reject(error ?? new Error('the api closed the connection'));
      waiting = undefined;
    };
    socket.setEncoding('latin1').on('data', hear);
    socket.on('error', lose).on('close', () => {
      if (socket === open) lose();
    });
    received = '';
    return (open = socket);
  }

  return {
    ask(method, path, body) {
      const text = body === undefined ? '' : JSON.stringify(body);
      const entity =
        body === undefined
          ? ''
          : `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\n`;
      return new Promise((resolve, reject) => {
        const socket = connected();
        waiting = { resolve, reject };
        socket.write(`${method} ${path} HTTP/1.1\r\n${head}${entity}\r\n${text}`);
      });
    },
    close() {
      open?.destroy();
    },
  };
}
