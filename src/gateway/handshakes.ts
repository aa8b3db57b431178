import { constants } from 'node:crypto';
import type net from 'node:net';
import tls from 'node:tls';
import type { GatewayTls } from '../certificates/gateway-tls.ts';
import { createHandshakeQueue } from './handshake-queue.ts';
import { HandshakeTransport } from './handshake-transport.ts';
import type { GatewayLimits } from './limits.ts';

/** A completed handshake. Whether its certificate is one of Berth's is decided in authenticate.ts. */
export interface SecureClient {
  readonly client: tls.TLSSocket;
  /** The TCP socket below. */
  readonly socket: net.Socket;
  /** Unit in which its address is limited. */
  readonly source: string;
  /** The client has a live binding: the time that its handshake took isn't charged to its address. */
  refund(): void;
}

/** The TLS handshakes of clients that nobody knows yet: limited in bytes, and in the time that they take. */
export interface Handshakes {
  /** @param source unit in which addresses are limited. */
  begin(socket: net.Socket, source: string): void;
  replaceTls(tls: GatewayTls): void;
  close(): void;
}

/** @throws Error if the TLS key and certificates can't be used. */
export function createHandshakes(deps: {
  tls: GatewayTls;
  limits: GatewayLimits;
  onSecure: (secure: SecureClient) => void;
  /** Not TLS, or no protocol version or cipher in common. */
  onFailed: (code: string | undefined) => void;
  /** The client sent more than a client with a binding does. */
  onExcess: (socket: net.Socket) => void;
}): Handshakes {
  const { limits } = deps;
  const queue = createHandshakeQueue({ threadShare: limits.handshakeThreadShare });
  const allowance = { hello: limits.maxHelloBytes, flight: limits.maxFlightBytes };
  /** Takes a client whose handshake ends in the step that runs at present. */
  let complete: ((client: tls.TLSSocket) => void) | undefined;

  const server = tls.createServer({
    ...secureContext(deps.tls),
    requestCert: true,
    // Decided in authenticate.ts, so that a refusal can state its reason.
    rejectUnauthorized: false,
    // The gate's limits in time end first.
    handshakeTimeout: limits.firstBytesTimeoutMs + 2 * limits.handshakeTimeoutMs,
  });
  server.on('tlsClientError', (error: NodeJS.ErrnoException, client) => {
    // The connection was closed, here or there.
    if (error.code !== 'ECONNRESET') deps.onFailed(error.code);
    client.destroy();
  });
  server.on('secureConnection', (client) => {
    client.on('error', () => undefined);
    if (complete === undefined) client.destroy();
    else complete(client);
  });

  return {
    begin(socket, source) {
      let spentMs = 0;
      let isRefunded = false;
      const transport = new HandshakeTransport(socket, {
        allowance,
        requestTurn: (order, step) =>
          queue.add(source, {
            order,
            run() {
              complete = (client) => {
                transport.open();
                // After an orderly end, the client may still have bytes to be relayed.
                socket.once('close', (hasFailed) => {
                  if (hasFailed) client.destroy();
                });
                deps.onSecure({
                  ...{ client, socket, source },
                  refund: () => {
                    isRefunded = true;
                    queue.refund(source, spentMs);
                  },
                });
              };
              step();
              complete = undefined;
            },
            took(ms) {
              spentMs += ms;
              // The client was admitted within this step.
              if (isRefunded) queue.refund(source, ms);
            },
          }),
        onExcess: () => {
          deps.onExcess(socket);
        },
      });
      server.emit('connection', transport);
    },
    replaceTls(next) {
      server.setSecureContext(secureContext(next));
    },
    close: () => {
      queue.close();
    },
  };
}

function secureContext({ key, cert, clientCas }: GatewayTls): tls.SecureContextOptions {
  if (clientCas.length === 0) throw new Error('clientCas is empty: no client could connect');
  return {
    key,
    cert,
    ca: [...clientCas],
    minVersion: 'TLSv1.2',
    // A resumed session would present its certificate without proof of the key, and after its expiry. Without
    // tickets and a session store nothing is resumed. Renegotiation could change the client's identity.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
}
