import net from 'node:net';
import tls from 'node:tls';

/** An engine, or a proxy in front of it. */
export interface Target {
  readonly host: string;
  readonly port: number;
  /** PEM; left out for plain TCP. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string };
  /** User id under which the connection is made: the firewall lets only the gateway's reach an engine. */
  readonly uid?: number;
}

/** One connection, which carries one request at a time. */
export interface Connection {
  /** Resolves when `GET path` is answered in full; for a stream, when its head is there. */
  get(path: string): Promise<void>;
  /** Resolves when either side has closed the connection. */
  readonly closed: Promise<void>;
  close(): void;
}

const timeoutMs = 30_000;

/** @throws if the connection is refused or not accepted in time. */
export async function openConnection(target: Target): Promise<Connection> {
  const socket = await connected(target);
  let received = '';
  let waiting: { resolve: () => void; reject: (error: Error) => void } | undefined;
  const settle = (error?: Error) => {
    const asked = waiting;
    waiting = undefined;
    if (error === undefined) asked?.resolve();
    else asked?.reject(error);
  };
  socket.setEncoding('latin1').on('data', (text: string) => {
    received += text;
    const end = received.indexOf('\r\n\r\n');
    if (end < 0) return;
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(received)?.[1] ?? 0);
    if (received.length < end + 4 + length) return;
    const status = received.slice(9, 12);
    received = '';
    settle(status === '200' ? undefined : new Error(`${target.host}:${target.port} answered ${status}`));
  });
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      settle(new Error(`${target.host}:${target.port} closed the connection`));
      resolve();
    });
  });
  return {
    closed,
    get: (path) =>
      new Promise((resolve, reject) => {
        waiting = { resolve, reject };
        socket.write(`GET ${path} HTTP/1.1\r\nHost: engine\r\n\r\n`);
      }),
    close() {
      socket.destroy();
    },
  };
}

async function connected({ host, port, tls: secure, uid }: Target): Promise<net.Socket> {
  // A socket keeps the uid that created it, so only its creation needs the other uid (socket(7), nft meta skuid).
  if (uid !== undefined) process.seteuid?.(uid);
  try {
    return await new Promise((resolve, reject) => {
      const socket =
        secure === undefined
          ? net.connect({ host, port, noDelay: true }, () => {
              resolve(socket);
            })
          : tls.connect({ host, port, ...secure, minVersion: 'TLSv1.3' }, () => {
              resolve(socket.setNoDelay());
            });
      const timer = setTimeout(() => {
        socket.destroy(new Error(`${host}:${port} accepted no connection within ${timeoutMs} ms`));
      }, timeoutMs);
      socket.once('error', reject).once('close', () => {
        clearTimeout(timer);
      });
      socket.once(secure === undefined ? 'connect' : 'secureConnect', () => {
        clearTimeout(timer);
        socket.off('error', reject).on('error', () => undefined);
      });
    });
  } finally {
    if (uid !== undefined) process.seteuid?.(0);
  }
}
