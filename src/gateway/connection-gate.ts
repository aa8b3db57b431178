import net from 'node:net';
import type { GatewayLimits } from './limits.ts';
import { sourceOf } from './source-address.ts';

/**
 * Accepts connections. Until a connection is admitted it is unauthenticated: limited in number (in total and
 * per source address) and in time. A newcomer is never rejected because of other connections of its address, which may
 * be strangers behind the same NAT: an older one makes room.
 */
export interface ConnectionGate {
  listen(port: number, host: string | undefined): Promise<number>;
  /** The connection is authenticated: the gate's limits no longer apply to it. */
  admitted(socket: net.Socket): void;
  /** Drops an unauthenticated connection. */
  drop(socket: net.Socket, why: DropReason): void;
  /** Number of unauthenticated connections. */
  unauthenticated(): number;
  /** Stops listening and drops all unauthenticated connections. */
  close(): void;
}

export type DropReason =
  /** Evicted to make room for a newer connection of the same address. */
  | 'address-full'
  /** Evicted to make room for a newer connection of another address. */
  | 'room-needed'
  /** Sent nothing in time. */
  | 'silent'
  /** Not admitted in time. */
  | 'too-slow'
  /** Sent more before its admission than a client with a binding does. */
  | 'too-much';

interface Unauthenticated {
  readonly socket: net.Socket;
  readonly source: string;
  timer: NodeJS.Timeout;
  /** It has sent something. */
  hasSpoken: boolean;
}

/**
 * @param deps.onConnection receives each connection that may start its handshake, with the source address by which it
 * is limited.
 * @param deps.onDropped is called for each connection that is evicted, timed out or dropped, with its source address.
 */
export function createConnectionGate(deps: {
  limits: GatewayLimits;
  onConnection: (socket: net.Socket, source: string) => void;
  onDropped: (why: DropReason, source: string) => void;
  onError: (error: Error) => void;
}): ConnectionGate {
  const { limits } = deps;
  const bySocket = new Map<net.Socket, Unauthenticated>();
  /** By source address; each set is oldest first. */
  const bySource = new Map<string, Set<Unauthenticated>>();
  const server = net.createServer(
    // Half-open: the end of a client's input is passed on as such.
    {
      ...{ noDelay: true, allowHalfOpen: true },
      ...{ keepAlive: true, keepAliveInitialDelay: limits.keepAliveMs },
    },
    accept,
  );

  function accept(socket: net.Socket): void {
    socket.on('error', () => undefined);
    const { remoteAddress } = socket;
    // Closed already.
    if (remoteAddress === undefined) {
      socket.destroy();
      return;
    }
    const source = sourceOf(remoteAddress);
    const siblings = bySource.get(source);
    if (siblings !== undefined && siblings.size >= limits.maxUnauthenticatedPerAddress)
      evict(siblings, 'address-full');
    else if (bySocket.size >= limits.maxUnauthenticated) evict(mostNumerous(), 'room-needed');
    add(socket, source);
    deps.onConnection(socket, source);
  }

  function add(socket: net.Socket, source: string): void {
    const limit = (ms: number, why: DropReason) =>
      setTimeout(() => {
        drop(socket, why);
      }, ms);
    const entry: Unauthenticated = {
      ...{ socket, source, hasSpoken: false },
      timer: limit(limits.firstBytesTimeoutMs, 'silent'),
    };
    bySocket.set(socket, entry);
    const siblings = bySource.get(source) ?? new Set();
    bySource.set(source, siblings.add(entry));
    socket.once('data', () => {
      entry.hasSpoken = true;
      clearTimeout(entry.timer);
      if (bySocket.has(socket)) entry.timer = limit(limits.handshakeTimeoutMs, 'too-slow');
    });
    socket.once('close', () => {
      remove(socket);
    });
  }

  /** Clients with a binding finish quickly, so the oldest has to leave; first of those that have sent nothing yet. */
  function evict(from: ReadonlySet<Unauthenticated>, why: DropReason): void {
    let oldest: Unauthenticated | undefined;
    for (const entry of from) {
      oldest ??= entry;
      if (entry.hasSpoken) continue;
      oldest = entry;
      break;
    }
    if (oldest !== undefined) drop(oldest.socket, why);
  }

  /** The connections of the address that has most of them. */
  function mostNumerous(): ReadonlySet<Unauthenticated> {
    let most: ReadonlySet<Unauthenticated> = new Set();
    for (const entries of bySource.values()) if (entries.size > most.size) most = entries;
    return most;
  }

  function drop(socket: net.Socket, why: DropReason): void {
    const entry = bySocket.get(socket);
    if (entry === undefined) return;
    remove(socket);
    socket.destroy();
    deps.onDropped(why, entry.source);
  }

  function remove(socket: net.Socket): void {
    const entry = bySocket.get(socket);
    if (entry === undefined) return;
    clearTimeout(entry.timer);
    bySocket.delete(socket);
    const siblings = bySource.get(entry.source);
    siblings?.delete(entry);
    if (siblings?.size === 0) bySource.delete(entry.source);
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
    admitted: remove,
    drop,
    unauthenticated: () => bySocket.size,
    close() {
      server.close();
      for (const socket of [...bySocket.keys()]) socket.destroy();
    },
  };
}
