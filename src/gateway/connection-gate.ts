import net from 'node:net';
import type { GatewayLimits } from './limits.ts';

/**
 * Where connections come in. Until they are admitted they are strangers: bounded in number, over all and for
 * each address, and in time, whatever they send or don't send.
 */
export interface ConnectionGate {
  listen(port: number, host: string | undefined): Promise<number>;
  /** The connection is not a stranger any more: nothing here bounds it from now on. */
  admitted(connection: net.Socket): void;
  strangers(): number;
  /** Listens no more and drops all strangers. */
  close(): void;
}

/** All connections taken; those from one address; made room for another; took too long. */
export type DropReason = 'full' | 'address-full' | 'room-needed' | 'too-slow';

interface Stranger {
  readonly socket: net.Socket;
  readonly address: string;
  readonly timer: NodeJS.Timeout;
}

/**
 * @param parts.onConnection is given each connection that may begin.
 * @param parts.onDropped is told of each that may not, and of strangers that had to make room or took too long.
 */
export function createConnectionGate(parts: {
  limits: GatewayLimits;
  onConnection: (socket: net.Socket) => void;
  onDropped: (why: DropReason) => void;
  onError: (error: Error) => void;
}): ConnectionGate {
  const { limits, onDropped } = parts;
  /** By name, in the order in which they came. */
  const strangers = new Map<string, Stranger>();
  const byAddress = new Map<string, number>();
  const server = net.createServer(
    { noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.keepAliveMs },
    enter,
  );
  server.maxConnections = limits.maxConnections;
  server.on('drop', () => {
    onDropped('full');
  });

  function enter(socket: net.Socket): void {
    socket.on('error', () => undefined);
    const { remoteAddress: address } = socket;
    // Gone already.
    if (address === undefined) {
      socket.destroy();
      return;
    }
    const fromThere = byAddress.get(address) ?? 0;
    if (fromThere >= limits.maxStrangersPerAddress) {
      onDropped('address-full');
      socket.destroy();
      return;
    }
    if (strangers.size >= limits.maxStrangers) dropOldest();
    const name = nameOf(socket);
    const timer = setTimeout(() => {
      onDropped('too-slow');
      socket.destroy();
    }, limits.handshakeTimeoutMs);
    strangers.set(name, { socket, address, timer });
    byAddress.set(address, (byAddress.get(address) ?? 0) + 1);
    socket.once('close', () => {
      leave(name, socket);
    });
    parts.onConnection(socket);
  }

  /** Whoever is honest is through its handshake soon, so the oldest is the least likely to be missed. */
  function dropOldest(): void {
    const [oldest] = strangers.entries();
    if (oldest === undefined) return;
    const [name, { socket }] = oldest;
    onDropped('room-needed');
    leave(name, socket);
    socket.destroy();
  }

  function leave(name: string, socket?: net.Socket): void {
    const stranger = strangers.get(name);
    // A port may have been used again by the time that an old connection's close is heard of.
    if (stranger === undefined || (socket !== undefined && stranger.socket !== socket)) return;
    clearTimeout(stranger.timer);
    strangers.delete(name);
    const left = (byAddress.get(stranger.address) ?? 1) - 1;
    if (left === 0) byAddress.delete(stranger.address);
    else byAddress.set(stranger.address, left);
  }

  return {
    listen: (port, host) =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ port, host }, () => {
          server.off('error', reject);
          server.on('error', parts.onError);
          resolve((server.address() as net.AddressInfo).port);
        });
      }),
    admitted(connection) {
      leave(nameOf(connection));
    },
    strangers: () => strangers.size,
    close() {
      server.close();
      for (const { socket } of [...strangers.values()]) socket.destroy();
    },
  };
}

/** Both ends of a connection: the TLS socket and the one below it have the same. */
const nameOf = (socket: net.Socket) =>
  [socket.remoteAddress, socket.remotePort, socket.localAddress, socket.localPort].join(' ');
