import { createServer as createHttpServer, type Server, STATUS_CODES } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Express } from 'express';
import { maxConnections, maxHeaderBytes, maxHeaders, type Timeouts, usualTimeouts } from './limits.ts';

export interface HttpListener {
  readonly port: number;
  stop(): Promise<void>;
}

/** A certificate with its chain and key, PEM; with `clientAuthorities`, clients must show one of theirs. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
  readonly clientAuthorities: string | undefined;
}

/**
 * Serves an app, bounded against slow and greedy clients.
 * @param options.tls undefined: plain HTTP.
 * @param options.timeouts, most bounds in milliseconds and connections; others than usual only for tests, which can't wait so long.
 * @throws Error which names the port and the setting, where the port is taken or forbidden.
 */
export async function listen(
  app: Express,
  options: {
    host: string;
    port: number;
    setting: string;
    tls?: ServerTls | undefined;
    timeouts?: Timeouts;
    most?: number;
  },
): Promise<HttpListener> {
  const timeouts = options.timeouts ?? usualTimeouts;
  const server = createServer(app, options.tls, timeouts);
  server.maxConnections = options.most ?? maxConnections;
  // One more than is allowed, so that the app sees that there are too many.
  server.maxHeadersCount = maxHeaders + 1;
  server.setTimeout(timeouts.silence);
  server.on('clientError', answerUnreadable);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        new Error(
          `Port ${options.port} on ${options.host} can't be used (${error.code ?? error.message}): end what uses it, or set ${options.setting} to another one.`,
          { cause: error },
        ),
      );
    });
    server.listen(options.port, options.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
        server.closeIdleConnections();
        setTimeout(() => {
          server.closeAllConnections();
        }, 5_000).unref();
      }),
  };
}

function createServer(app: Express, tls: ServerTls | undefined, timeouts: Timeouts): Server {
  const bounds = {
    headersTimeout: timeouts.headers,
    requestTimeout: timeouts.request,
    connectionsCheckingInterval: timeouts.checkEvery,
    keepAliveTimeout: timeouts.keepAlive,
    maxHeaderSize: maxHeaderBytes,
  };
  if (tls === undefined) return createHttpServer(bounds, app);
  const { cert, key, clientAuthorities } = tls;
  return createHttpsServer(
    {
      ...bounds,
      cert,
      key,
      minVersion: 'TLSv1.2',
      handshakeTimeout: timeouts.tlsHandshake,
      ...(clientAuthorities !== undefined && {
        ca: clientAuthorities,
        requestCert: true,
        rejectUnauthorized: true,
      }),
    },
    app,
  );
}

/** Node's own codes (llhttp, and `ERR_HTTP_REQUEST_TIMEOUT`) for what never becomes a request that an app sees. */
const unreadable = new Map<string | undefined, [status: number, description: string]>([
  ['HPE_HEADER_OVERFLOW', [431, `The headers are larger than ${maxHeaderBytes / 1024} KiB.`]],
  [
    'ERR_HTTP_REQUEST_TIMEOUT',
    [
      408,
      `The request was not complete in time: headers in ${usualTimeouts.headers / 1000} s, all of it in ${usualTimeouts.request / 1000} s.`,
    ],
  ],
]);
const malformed: [number, string] = [400, 'This is not an HTTP request that can be read.'];

/** What can't be read as HTTP is answered in JSON as everything else is, and the connection closed. */
function answerUnreadable(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const [status, description] = unreadable.get(error.code) ?? malformed;
  const body = JSON.stringify({ description });
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\n` +
      `Content-Length: ${Buffer.byteLength(body)}\r\nCache-Control: no-store\r\n\r\n${body}`,
    // Whoever does not read the answer does not keep the connection.
    () => socket.destroy(),
  );
}
