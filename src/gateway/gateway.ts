import { constants } from 'node:crypto';
import tls from 'node:tls';
import type { GatewayTls } from '../certificates/gateway-tls.ts';
import type { LiveBinding, LiveBindingsSource } from '../core/ports/live-bindings.ts';
import { identify } from './authenticate.ts';
import { createBindingSync } from './binding-sync.ts';
import { systemClock, type Clock } from './clock.ts';
import { createConnectionGate } from './connection-gate.ts';
import { createCounters, type CutReason, type GatewayState } from './counters.ts';
import { createLease } from './lease.ts';
import { defaultLimits, type GatewayLimits } from './limits.ts';
import { createLiveCache } from './live-cache.ts';
import { proxy, type Routable } from './proxy.ts';
import { refuse, type RefusalReason } from './refusal.ts';
import { createStreams } from './streams.ts';
import { createWaker } from './waker.ts';
import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';

export interface GatewayOptions {
  readonly source: LiveBindingsSource;
  readonly tls: GatewayTls;
  /** 0: any free port. */
  readonly port: number;
  /** Address to listen on; all addresses if undefined. */
  readonly host?: string;
  /** Length of the lease, in milliseconds: the longest that an unbind waits for a gateway that hangs. */
  readonly leaseMs?: number;
  /** Milliseconds between renewals of the lease. */
  readonly renewEveryMs?: number;
  readonly limits?: Partial<GatewayLimits>;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/**
 * The TLS endpoint in front of every host's engine. The client certificate is the address: it identifies a
 * binding, and the binding a host. While the gateway can't be sure which bindings are live, it refuses new
 * connections, and cuts open ones when its lease runs out.
 */
export interface Gateway {
  /**
   * Gets in sync with Postgres and listens. If Postgres is unavailable it listens, refuses, and retries.
   * @throws Error if it can't listen on the port.
   */
  start(): Promise<{ port: number }>;
  /** Refuses new connections, cuts open ones, and releases the lease, so that no unbind waits for it. */
  stop(): Promise<void>;
  /**
   * Uses another certificate or other CAs for connections from now on.
   * @throws Error if key and certificates don't match; nothing changes then.
   */
  replaceTls(tls: GatewayTls): void;
  state(): GatewayState;
}

/** @throws Error if the TLS key and certificates can't be used. */
export function createGateway(options: GatewayOptions): Gateway {
  const { logger, clock = systemClock, leaseMs = 5_000 } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const counters = createCounters();
  let stopped = false;

  const streams = createStreams({
    clock,
    onExpired: (bindingId, count) => {
      countCut('expired', count, bindingId);
    },
  });
  const cache = createLiveCache({
    capacity: limits.maxCachedBindings,
    isOpen: (bindingId) => streams.count(bindingId) > 0,
    onInvalidated: (bindingId) => {
      countCut('invalidated', streams.cut(bindingId), bindingId);
    },
    onRead: (binding) => {
      waker.bindingRead(binding);
    },
  });
  const waker = createWaker({
    requestWake: (hostId) => options.source.wake(hostId),
    timeoutMs: limits.wakeTimeoutMs,
  });
  const lease = createLease({
    clock,
    leaseMs,
    onLost: () => {
      countCut('lease-lost', streams.cutAll());
      sync.leaseLost();
    },
  });
  const sync = createBindingSync({
    ...{ source: options.source, cache, lease, leaseMs, logger },
    renewEveryMs: options.renewEveryMs ?? 1_000,
    maxLookUps: limits.maxLookUps,
    lookUpTimeoutMs: limits.lookUpTimeoutMs,
  });
  const tlsServer = tls.createServer({
    ...secureContext(options.tls),
    requestCert: true,
    // Decided in authenticate.ts, so that a refusal can state its reason.
    rejectUnauthorized: false,
  });
  const gate = createConnectionGate({
    limits,
    onConnection: (socket) => tlsServer.emit('connection', socket),
    onDropped: (why) => {
      counters.dropped[why] += 1;
    },
    onError: (error) => {
      logger.error({ err: error }, 'Listening socket failed; the gateway may accept no new connections');
    },
  });

  tlsServer.on('tlsClientError', (_, socket) => {
    counters.failedHandshakes += 1;
    socket.destroy();
  });
  tlsServer.on('secureConnection', (client) => {
    client.on('error', () => undefined);
    // Only after the handshake: docker ends its input and continues to read.
    client.allowHalfOpen = true;
    receive(client).catch((error: unknown) => {
      logger.error({ err: error }, 'Connection handler failed; connection closed');
      client.destroy();
    });
  });

  async function receive(client: tls.TLSSocket): Promise<void> {
    const { serial, refusal } = identify(client);
    if (refusal !== undefined) {
      reject(client, refusal);
      return;
    }
    let route = authorise(serial);
    // The binding has not connected here recently, or the client is faster than its notification.
    if (route === 'unknown') route = (await sync.lookUp(serial)) ? authorise(serial) : 'look-up-failed';
    if (typeof route !== 'string' && route.asleep) {
      const outcome = await waker.wake(route);
      // Checked again: the binding may have been revoked while the host woke.
      route = outcome === 'awake' ? authorise(serial) : outcome;
    }
    if (client.destroyed) return;
    if (typeof route === 'string') reject(client, route);
    else admit(client, route);
  }

  /** The binding that a certificate may use now, or why it may not. */
  function authorise(serial: string): Routable | RefusalReason {
    if (stopped || !sync.inSync()) return 'out-of-sync';
    const binding = cache.bySerial(serial);
    if (binding === undefined) return 'unknown';
    if (binding.expiresAt.getTime() <= clock.wall()) return 'expired';
    if (!isRoutable(binding)) return 'host-away';
    if (streams.count(binding.bindingId) >= limits.maxConnectionsPerBinding) return 'too-many';
    return binding;
  }

  function reject(client: tls.TLSSocket, reason: RefusalReason): void {
    counters.refused[reason] += 1;
    logger.debug({ reason, from: client.remoteAddress }, 'Connection refused');
    refuse(client, reason);
  }

  function admit(client: tls.TLSSocket, binding: Routable): void {
    gate.admitted(client);
    counters.admitted += 1;
    proxy(client, binding, {
      limits,
      streams,
      onPassed: (up, down) => {
        counters.bytesToEngines += up;
        counters.bytesToClients += down;
      },
      mayPass: () => {
        if (!lease.isValid()) return false;
        if (binding.expiresAt.getTime() > clock.wall()) return true;
        countCut('expired', streams.cut(binding.bindingId), binding.bindingId);
        return false;
      },
      onSlow: () => {
        options.source.wake(binding.hostId).catch(() => undefined);
      },
      onUnreachable: (error) => {
        logger.warn(
          { err: error, bindingId: binding.bindingId, hostId: binding.hostId },
          'Engine accepted no connection; client refused',
        );
        reject(client, 'engine-unreachable');
      },
    });
  }

  function countCut(reason: CutReason, count: number, bindingId?: string): void {
    if (count === 0) return;
    counters.cut[reason] += count;
    logger.info({ reason, streams: count, bindingId }, 'Open connections cut');
  }

  return {
    async start() {
      await sync.start();
      try {
        const port = await gate.listen(options.port, options.host);
        return { port };
      } catch (cause) {
        await sync.stop();
        throw new Error(
          `The gateway can't listen on port ${options.port}${options.host === undefined ? '' : ` of ${options.host}`} (${errorMessage(cause)}): stop the process that uses it, or give the gateway another port.`,
          { cause },
        );
      }
    },
    async stop() {
      stopped = true;
      gate.close();
      countCut('stopped', streams.cutAll());
      await sync.stop();
    },
    replaceTls(next) {
      tlsServer.setSecureContext(secureContext(next));
    },
    state: () => ({
      inSync: sync.inSync(),
      cachedBindings: cache.size(),
      connections: streams.total(),
      unauthenticated: gate.unauthenticated(),
      counters,
    }),
  };
}

const isRoutable = (binding: LiveBinding): binding is Routable => binding.engine !== undefined;

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
