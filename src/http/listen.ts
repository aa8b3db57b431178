import { createServer as createHttpServer, type Server, STATUS_CODES } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Express } from 'express';
import { limitConnections } from './connection-limit.ts';
import { maxConnections, maxHeaderBytes, maxHeaders, type Timeouts, usualTimeouts } from './limits.ts';

export interface HttpListener {
  readonly port: number;
  stop(): Promise<void>;
}

/** Certificate with chain, and key, in PEM; with `clientCas`, clients must present a certificate of one of them. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
  readonly clientCas: string | undefined;
}

/**
 * Serves an app, with limits against slow and greedy clients.
 * @param options.tls undefined: plain HTTP.
 * @param options.timeouts in milliseconds; only tests, which can't wait that long, pass shorter ones.
 * @param options.maxConnections only tests pass another limit.
 * @throws Error that names the port and the setting if the port is in use or forbidden.
 */
export async function listen(
  app: Express,
  options: {
    host: string;
    port: number;
    setting: string;
    tls?: ServerTls | undefined;
    timeouts?: Timeouts;
    maxConnections?: number;
  },
): Promise<HttpListener> {
  const timeouts = options.timeouts ?? usualTimeouts;
  const server = createServer(app, options.tls, timeouts);
  limitConnections(server, options.maxConnections ?? maxConnections);
  // One more than allowed, so that headerLimit sees that there are too many.
  server.maxHeadersCount = maxHeaders + 1;
  server.setTimeout(timeouts.silence);
  server.on('clientError', answerUnreadable);
  // Runs after answerUnreadable, whose answer would wait forever for the end of a handshake that failed or timed out.
  server.on('tlsClientError', (_error: Error, socket: Socket) => {
    socket.destroy();
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        new Error(
          `Port ${options.port} on ${options.host} can't be used (${error.code ?? error.message}): stop the process that uses it, or set ${options.setting} to another port.`,
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
  const { cert, key, clientCas } = tls;
  return createHttpsServer(
    {
      ...bounds,
      cert,
      key,
      minVersion: 'TLSv1.2',
      handshakeTimeout: timeouts.tlsHandshake,
      ...(clientCas !== undefined && {
        ca: clientCas,
        requestCert: true,
        rejectUnauthorized: true,
      }),
    },
    app,
  );
}

/** Node's error codes (llhttp, and `ERR_HTTP_REQUEST_TIMEOUT`) for requests that never reach the app. */
const unreadable = new Map<string | undefined, [status: number, description: string]>([
  ['HPE_HEADER_OVERFLOW', [431, `The headers are larger than ${maxHeaderBytes / 1024} KiB.`]],
  [
    'ERR_HTTP_REQUEST_TIMEOUT',
    [
      408,
      `The request was not complete in time: headers within ${usualTimeouts.headers / 1000} s, the whole request within ${usualTimeouts.request / 1000} s.`,
    ],
  ],
]);
const malformed: [number, string] = [400, 'The request is not valid HTTP.'];

/** Answers an unreadable request in JSON, like every other request, and closes the connection. */
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
    // Also if the client does not read the answer.
    () => socket.destroy(),
  );
}
