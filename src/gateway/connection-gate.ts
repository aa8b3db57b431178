import net from 'node:net';
import type { GatewayLimits } from './limits.ts';

/**
 * Accepts connections. Until a connection is admitted it is unauthenticated: limited in number (in total and
 * per address) and in time, whatever it sends.
 */
export interface ConnectionGate {
  listen(port: number, host: string | undefined): Promise<number>;
  /** The connection is authenticated: the gate's limits no longer apply to it. */
  admitted(connection: net.Socket): void;
  /** Number of unauthenticated connections. */
  unauthenticated(): number;
  /** Stops listening and drops all unauthenticated connections. */
  close(): void;
}

export type DropReason =
  /** The limit of all connections is reached. */
  | 'full'
  /** The limit of unauthenticated connections from one address is reached. */
  | 'address-full'
  /** Evicted to make room for a newer connection. */
  | 'room-needed'
  /** Not admitted in time. */
  | 'too-slow';

interface Unauthenticated {
  readonly socket: net.Socket;
  readonly address: string;
  readonly timer: NodeJS.Timeout;
}

/**
 * @param deps.onConnection receives each connection that may start its handshake.
 * @param deps.onDropped is called for each connection that is rejected, evicted or timed out.
 */
export function createConnectionGate(deps: {
  limits: GatewayLimits;
  onConnection: (socket: net.Socket) => void;
  onDropped: (why: DropReason) => void;
  onError: (error: Error) => void;
}): ConnectionGate {
  const { limits, onDropped } = deps;
  /** By connection key, oldest first. */
  const unauthenticated = new Map<string, Unauthenticated>();
  const countByAddress = new Map<string, number>();
  const server = net.createServer(
    { noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.keepAliveMs },
    accept,
  );
  server.maxConnections = limits.maxConnections;
  server.on('drop', () => {
    onDropped('full');
  });

  function accept(socket: net.Socket): void {
    socket.on('error', () => undefined);
    const { remoteAddress: address } = socket;
    // Closed already.
    if (address === undefined) {
      socket.destroy();
      return;
    }
    const count = countByAddress.get(address) ?? 0;
    if (count >= limits.maxUnauthenticatedPerAddress) {
      onDropped('address-full');
      socket.destroy();
      return;
    }
    if (unauthenticated.size >= limits.maxUnauthenticated) evictOldest();
    const key = keyOf(socket);
    const timer = setTimeout(() => {
      onDropped('too-slow');
      socket.destroy();
    }, limits.handshakeTimeoutMs);
    unauthenticated.set(key, { socket, address, timer });
    countByAddress.set(address, (countByAddress.get(address) ?? 0) + 1);
    socket.once('close', () => {
      remove(key, socket);
    });
    deps.onConnection(socket);
  }

  /** Legitimate clients finish quickly, so the oldest pending handshake is the one to evict. */
  function evictOldest(): void {
    const [oldest] = unauthenticated.entries();
    if (oldest === undefined) return;
    const [key, { socket }] = oldest;
    onDropped('room-needed');
    remove(key, socket);
    socket.destroy();
  }

  function remove(key: string, socket?: net.Socket): void {
    const entry = unauthenticated.get(key);
    // The client's port may have been reused before the close event of its old connection.
    if (entry === undefined || (socket !== undefined && entry.socket !== socket)) return;
    clearTimeout(entry.timer);
    unauthenticated.delete(key);
    const left = (countByAddress.get(entry.address) ?? 1) - 1;
    if (left === 0) countByAddress.delete(entry.address);
    else countByAddress.set(entry.address, left);
  }

  return {
    listen: (port, host) =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ port, host }, () => {
          server.off('error', reject);
          server.on('error', deps.onError);
          resolve((server.address() as net.AddressInfo).port);
        });
      }),
    admitted(connection) {
      remove(keyOf(connection));
    },
    unauthenticated: () => unauthenticated.size,
    close() {
      server.close();
      for (const { socket } of [...unauthenticated.values()]) socket.destroy();
    },
  };
}

/** Identifies a connection by its addresses: the TLS socket and the TCP socket below it have the same. */
const keyOf = (socket: net.Socket) =>
  [socket.remoteAddress, socket.remotePort, socket.localAddress, socket.localPort].join(' ');
