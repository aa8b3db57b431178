import { randomUUID } from 'node:crypto';
import type { TcpSocketConnectOpts } from 'node:net';
import tls from 'node:tls';
import { onTestFinished } from 'vitest';
import type { IssuedCertificate } from '../../../src/core/ports/certificate-issuer.ts';
import type { EngineAddress } from '../../../src/core/hypervisor/network.ts';
import type { LiveBinding } from '../../../src/core/ports/live-bindings.ts';
import type { Logger } from '../../../src/lib/logger.ts';
import { createGateway, type Gateway, type GatewayOptions } from '../../../src/gateway/gateway.ts';
import type { World } from './certificates.ts';
import { FakeSource } from './fake-source.ts';
import { until } from './until.ts';

/** A logger that records its lines. */
export function recordingLogger(): { logger: Logger; lines: string[] } {
  const lines: string[] = [];
  const record = (level: string) => (details: object, message: string) => {
    const { err } = details as { err?: unknown };
    const reason = err instanceof Error ? ` (${err.message})` : '';
    lines.push(`${level}: ${message}${reason} ${JSON.stringify(details)}`);
  };
  const logger: Logger = {
    debug: record('debug'),
    info: record('info'),
    warn: record('warn'),
    error: record('error'),
    child: () => logger,
  };
  return { logger, lines };
}

/** A gateway over a fake source, running until the test ends. */
export interface Harness {
  readonly gateway: Gateway;
  readonly source: FakeSource;
  readonly port: number;
  readonly world: World;
  readonly lines: string[];
  /** Issues a certificate and stores its binding. */
  bind(engine: EngineAddress | undefined, change?: Partial<LiveBinding>): Promise<Bound>;
  connect(
    certificate: Pick<IssuedCertificate, 'certificatePem' | 'privateKeyPem'> | undefined,
    options?: ClientOptions,
  ): Client;
}

export interface Bound extends IssuedCertificate {
  readonly binding: LiveBinding;
}

export async function startGateway(
  world: World,
  options: Partial<GatewayOptions> & { source?: FakeSource } = {},
): Promise<Harness> {
  const source = options.source ?? new FakeSource();
  const { logger, lines } = recordingLogger();
  const gateway = createGateway({ tls: world.tls, port: 0, host: '127.0.0.1', logger, ...options, source });
  const { port } = await gateway.start();
  onTestFinished(() => gateway.stop());
  return {
    ...{ gateway, source, port, world, lines },
    async bind(engine, change = {}) {
      const issued = await world.issue();
      const binding: LiveBinding = {
        bindingId: randomUUID(),
        serial: issued.serial,
        expiresAt: issued.expiresAt,
        hostId: randomUUID(),
        tenantId: randomUUID(),
        engine,
        asleep: false,
        ...change,
      };
      source.put(binding);
      return { ...issued, binding };
    },
    connect: (certificate, more) => connect(port, world, certificate, more),
  };
}

export type ClientOptions = tls.ConnectionOptions & Pick<TcpSocketConnectOpts, 'localAddress'>;

/** A client's connection, with the data that it has received. */
export interface Client {
  readonly socket: tls.TLSSocket;
  /** Whether the handshake resumed a session; undefined before it has ended. */
  resumed(): boolean | undefined;
  /** Everything received so far. */
  received(): string;
  /** True once the other side has ended, or the connection is closed. */
  over(): boolean;
  /** Resolves with everything received, once the connection has ended. */
  readonly ended: Promise<string>;
  /** Sends a request, resolves with everything received until the other side ends, and closes the connection. */
  ask(request: string): Promise<string>;
}

export function connect(
  port: number,
  world: World,
  certificate: Pick<IssuedCertificate, 'certificatePem' | 'privateKeyPem'> | undefined,
  more: ClientOptions = {},
): Client {
  const socket = tls.connect({
    ...{ host: '127.0.0.1', port, ca: world.serverCa.certificatePem, allowHalfOpen: true },
    ...(certificate && { cert: certificate.certificatePem, key: certificate.privateKeyPem }),
    ...more,
  });
  const chunks: Buffer[] = [];
  let over = false;
  let resumed: boolean | undefined;
  socket.once('secureConnect', () => (resumed = socket.isSessionReused()));
  const ended = new Promise<string>((resolve) => {
    const finish = () => {
      over = true;
      resolve(Buffer.concat(chunks).toString());
    };
    socket.once('end', finish).once('close', finish);
  });
  socket.on('error', () => undefined);
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  onTestFinished(() => {
    socket.destroy();
  });
  return {
    socket,
    resumed: () => resumed,
    received: () => Buffer.concat(chunks).toString(),
    over: () => over,
    ended,
    async ask(request) {
      socket.write(request);
      const answer = await ended;
      socket.destroy();
      return answer;
    },
  };
}

/** A request without a body, as docker's first one. */
export const get = (path: string, method = 'GET') =>
  `${method} ${path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n`;

/** A request that upgrades the connection to a raw stream. */
export const attach = 'POST /attach HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n';

/** Opens an upgraded connection that stays open, like that of `docker logs -f`. */
export async function openStream(harness: Harness, bound: Bound): Promise<Client> {
  const client = harness.connect(bound);
  client.socket.write(attach);
  await until('the connection is upgraded', () => client.received().includes('UPGRADED'));
  return client;
}
