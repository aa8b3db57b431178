import { createServer, type IncomingMessage, type Server } from 'node:http';
import net from 'node:net';
import { onTestFinished } from 'vitest';
import type { EngineAddress } from '../../../src/core/hypervisor/network.ts';

/** A listener in place of an engine: it counts connections and bytes. */
export interface StandIn {
  readonly address: EngineAddress;
  /** Connections since the start. */
  connections(): number;
  /** Connections that are open now. */
  open(): number;
  /** Bytes received since the start. */
  bytes(): number;
  sockets(): readonly net.Socket[];
  close(): Promise<void>;
}

/** A stand-in whose behaviour `serve` defines for each connection. */
export async function createStandIn(serve: (socket: net.Socket) => void): Promise<StandIn> {
  return watch(net.createServer({ allowHalfOpen: true }), serve);
}

/**
 * An engine as docker sees it: `GET /_ping`, and `POST /attach`, which upgrades the connection as
 * `docker run -i` does: it reads the input to its end, and only then writes it back with a last line.
 */
export async function createHttpEngine(): Promise<StandIn> {
  const server: Server = createServer((request, response) => {
    response.setHeader('Server', 'Docker/stand-in').end(request.url === '/_ping' ? 'OK' : 'no such page');
  });
  // As the engine: it does not close idle connections.
  server.keepAliveTimeout = 0;
  server.on('upgrade', (_: IncomingMessage, socket: net.Socket, head: Buffer) => {
    const input: Buffer[] = [head];
    socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => input.push(chunk));
    socket.on('end', () => {
      socket.end(Buffer.concat([...input, Buffer.from('\nthat was all')]));
    });
  });
  return watch(server, () => undefined);
}

async function watch(server: net.Server, serve: (socket: net.Socket) => void): Promise<StandIn> {
  const open = new Set<net.Socket>();
  let connections = 0;
  let bytesOfClosed = 0;
  server.on('connection', (socket: net.Socket) => {
    connections += 1;
    open.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => {
      open.delete(socket);
      bytesOfClosed += socket.bytesRead;
    });
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: { host: '127.0.0.1', port: (server.address() as net.AddressInfo).port },
    connections: () => connections,
    open: () => open.size,
    bytes: () => bytesOfClosed + [...open].reduce((sum, socket) => sum + socket.bytesRead, 0),
    sockets: () => [...open],
    close: () =>
      new Promise((resolve) => {
        for (const socket of open) socket.destroy();
        server.close(() => {
          resolve();
        });
      }),
  };
}

/** An address on which nothing listens. */
export async function deadAddress(): Promise<EngineAddress> {
  const standIn = await createStandIn(() => undefined);
  await standIn.close();
  return standIn.address;
}

/** Closes an engine when the test ends. */
export async function untilTestEnds<T extends StandIn>(starting: Promise<T>): Promise<T> {
  const engine = await starting;
  onTestFinished(() => engine.close());
  return engine;
}

/** {@link createHttpEngine}, until the test ends. */
export const startHttpEngine = (): Promise<StandIn> => untilTestEnds(createHttpEngine());
