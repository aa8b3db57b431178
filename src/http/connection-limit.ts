import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { isAuthenticated } from './auth.ts';

interface Connection {
  readonly socket: Socket;
  readonly address: string;
  authenticated: boolean;
  /** Requests that are being answered. */
  requests: number;
}

/**
 * Bounds a server's connections without locking anybody out: if one too many is opened, another one is closed for it.
 * That is the oldest unauthenticated one of the address with most of those, so an address that opens many closes its
 * own; without any other unauthenticated one, the oldest authenticated one between two requests; without one of
 * these either, the new one itself. A connection is authenticated once a request on it was.
 */
export function limitConnections(server: Server, max: number): void {
  const connections = new Map<string, Connection>();
  /** By address, the oldest first; no set is empty. */
  const unauthenticated = new Map<string, Set<Connection>>();
  const authenticated = new Set<Connection>();

  const remove = (connection: Connection) => {
    authenticated.delete(connection);
    const ofAddress = unauthenticated.get(connection.address);
    ofAddress?.delete(connection);
    if (ofAddress?.size === 0) unauthenticated.delete(connection.address);
  };
  const close = (key: string, connection: Connection) => {
    if (connections.get(key) === connection) connections.delete(key);
    remove(connection);
    connection.socket.destroy();
  };
  const authenticate = (connection: Connection, response: ServerResponse) => {
    if (connection.authenticated || !isAuthenticated(response)) return;
    remove(connection);
    connection.authenticated = true;
    authenticated.add(connection);
  };

  function victimFor(newest: Connection): Connection {
    const most = [...unauthenticated.values()].reduce((one, other) => (other.size > one.size ? other : one));
    const [oldest = newest] = most;
    if (oldest !== newest) return oldest;
    for (const connection of authenticated) if (connection.requests === 0) return connection;
    return newest;
  }

  server.on('connection', (socket: Socket) => {
    const key = keyOf(socket);
    const address = networkOf(socket.remoteAddress ?? '');
    const connection: Connection = { socket, address, authenticated: false, requests: 0 };
    connections.set(key, connection);
    unauthenticated.set(address, (unauthenticated.get(address) ?? new Set()).add(connection));
    socket.once('close', () => {
      close(key, connection);
    });
    if (connections.size <= max) return;
    const victim = victimFor(connection);
    close(keyOf(victim.socket), victim);
  });

  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const connection = connections.get(keyOf(request.socket));
    if (connection === undefined) return;
    connection.requests += 1;
    // The app's own listener has run before: authentication is its synchronous part.
    authenticate(connection, response);
    response.once('close', () => {
      connection.requests -= 1;
    });
  });
}

/** The same for a TLS connection and the TCP connection below it, which are different objects. */
function keyOf({ remoteAddress = '', remotePort = 0 }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

/** An IPv6 client chooses among all addresses of its network of 64 bits. */
function networkOf(address: string): string {
  if (!address.includes(':') || address.startsWith('::ffff:')) return address;
  const [head = '', tail = ''] = address.split('::');
  const groups = head.split(':').filter(Boolean);
  const rest = tail.split(':').filter(Boolean);
  const zeros = Array<string>(Math.max(0, 8 - groups.length - rest.length)).fill('0');
  return [...groups, ...zeros, ...rest].slice(0, 4).join(':');
}
