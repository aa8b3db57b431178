import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Express } from 'express';

export interface HttpListener {
  readonly port: number;
  stop(): Promise<void>;
}

/**
 * Serves an app, bounded against slow and greedy clients.
 * @throws Error which names the port and the setting, where the port is taken or forbidden.
 */
export async function listen(
  app: Express,
  options: { host: string; port: number; setting: string },
): Promise<HttpListener> {
  const server: Server = createServer(
    // In milliseconds; a request's headers and body must be in by then.
    { headersTimeout: 10_000, requestTimeout: 30_000, keepAliveTimeout: 60_000, maxHeaderSize: 16 * 1024 },
    app,
  );
  server.maxConnections = 2_000;
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
