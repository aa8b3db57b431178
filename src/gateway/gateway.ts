import { constants } from 'node:crypto';
import tls from 'node:tls';
import type { LiveBinding, LiveBindingsSource } from '../core/ports/live-bindings.ts';
import type { Logger } from '../lib/logger.ts';
import { identify } from './authenticate.ts';
import { carry, type Routable } from './proxy.ts';
import { type Clock, systemClock } from './clock.ts';
import { createCounters, type CutReason, type GatewayState } from './counters.ts';
import { createConnectionGate } from './connection-gate.ts';
import { createBindingSync } from './binding-sync.ts';
import { createLease } from './lease.ts';
import { defaultLimits, type GatewayLimits } from './limits.ts';
import { createLiveCache } from './live-cache.ts';
import { refuse, type RefusalReason } from './refusal.ts';
import { createStreams } from './streams.ts';
import { createWaker } from './waker.ts';
import { errorMessage } from '../lib/error-message.ts';

/** What the gateway shows to clients, and whom of them it believes. */
export interface GatewayTls {
  /** The gateway's own private key, PEM. */
  readonly key: string;
  /** Its certificate, PEM. */
  readonly cert: string;
  /** Certificates of the authorities that sign bindings' certificates, PEM each; at least one. */
  readonly clientAuthorities: readonly string[];
}

export interface GatewayOptions {
  readonly source: LiveBindingsSource;
  readonly tls: GatewayTls;
  /** 0: any free one. */
  readonly port: number;
  /** Address to listen on; all of them where it is left out. */
  readonly host?: string;
  /** Length of the lease, in milliseconds: how long an unbind waits for a gateway that hangs. */
  readonly leaseMs?: number;
  /** Milliseconds between renewals of the lease. */
  readonly renewEveryMs?: number;
  readonly limits?: Partial<GatewayLimits>;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/**
 * The TLS endpoint in front of every host's engine. A client certificate is the address: it names a binding,
 * that a host. What can't be known for certain is refused, and what was open is cut.
 */
export interface Gateway {
  /**
   * Gets in sync with Postgres and listens. Where Postgres is away it listens all the same, refuses, and goes
   * on trying.
   * @throws Error where the port can't be listened on.
   */
  start(): Promise<{ port: number }>;
  /** Refuses, cuts everything, and gives the lease back, so that no unbind waits for it. */
  stop(): Promise<void>;
  /**
   * Uses another certificate, or other authorities, for connections from now on.
   * @throws Error where key and certificates don't fit; nothing is changed then.
   */
  replaceTls(tls: GatewayTls): void;
  state(): GatewayState;
}

/** Makes a gateway. Throws where the TLS key and certificates can't be used. */
export function createGateway(options: GatewayOptions): Gateway {
  const { logger, clock = systemClock, leaseMs = 5_000 } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const counters = createCounters();
  let stopped = false;

  const streams = createStreams({
    clock,
    onExpired: (bindingId, count) => {
      wereCut('expired', count, bindingId);
    },
  });
  const cache = createLiveCache({
    capacity: limits.maxBindingsHeld,
    isOpen: (bindingId) => streams.count(bindingId) > 0,
    onWithdrawn: (bindingId) => {
      wereCut('withdrawn', streams.cut(bindingId), bindingId);
    },
    onRead: (binding) => {
      waker.heard(binding);
    },
  });
  const waker = createWaker({
    ask: (hostId) => options.source.wake(hostId),
    timeoutMs: limits.wakeTimeoutMs,
  });
  const lease = createLease({
    clock,
    leaseMs,
    onLost: () => {
      wereCut('lease-lost', streams.cutAll());
      keeper.leaseLost();
    },
  });
  const keeper = createBindingSync({
    ...{ source: options.source, cache, lease, leaseMs, logger },
    renewEveryMs: options.renewEveryMs ?? 1_000,
    maxLookUps: limits.maxLookUps,
    lookUpTimeoutMs: limits.lookUpTimeoutMs,
  });
  const tlsServer = tls.createServer({
    ...secureContext(options.tls),
    requestCert: true,
    // Judged here, on every connection, so that a refusal can say why.
    rejectUnauthorized: false,
  });
  const doorway = createConnectionGate({
    limits,
    onConnection: (socket) => tlsServer.emit('connection', socket),
    onDropped: (why) => {
      counters.dropped[why] += 1;
    },
    onError: (error) => {
      logger.error({ err: error }, 'the gateway has trouble listening');
    },
  });

  tlsServer.on('tlsClientError', (_, socket) => {
    counters.failedHandshakes += 1;
    socket.destroy();
  });
  tlsServer.on('secureConnection', (client) => {
    client.on('error', () => undefined);
    // From now on docker may end its input and go on reading; whoever ends before the handshake is gone.
    client.allowHalfOpen = true;
    receive(client).catch((error: unknown) => {
      logger.error({ err: error }, 'a connection could not be handled');
      client.destroy();
    });
  });

  async function receive(client: tls.TLSSocket): Promise<void> {
    const { serial, refusal } = identify(client);
    if (refusal !== undefined) {
      turnAway(client, refusal);
      return;
    }
    let verdict = judge(serial);
    // Its binding has not connected here lately, or it is faster than the notification of its binding.
    if (verdict === 'unknown') verdict = (await keeper.lookUp(serial)) ? judge(serial) : 'look-up-failed';
    if (typeof verdict !== 'string' && verdict.asleep) {
      // Judged anew: it may have been unbound meanwhile.
      const outcome = await waker.wake(verdict);
      verdict = outcome === 'awake' ? judge(serial) : outcome;
    }
    if (client.destroyed) return;
    if (typeof verdict === 'string') turnAway(client, verdict);
    else admit(client, verdict);
  }

  /** Whether a certificate may connect now, and where to. */
  function judge(serial: string): Routable | RefusalReason {
    if (stopped || !keeper.inSync()) return 'out-of-sync';
    const binding = cache.bySerial(serial);
    if (binding === undefined) return 'unknown';
    if (binding.expiresAt.getTime() <= clock.wall()) return 'expired';
    if (!isRoutable(binding)) return 'host-away';
    if (streams.count(binding.bindingId) >= limits.maxConnectionsPerBinding) return 'too-many';
    return binding;
  }

  function turnAway(client: tls.TLSSocket, reason: RefusalReason): void {
    counters.refused[reason] += 1;
    logger.debug({ reason, from: client.remoteAddress }, 'refused a connection');
    refuse(client, reason);
  }

  function admit(client: tls.TLSSocket, binding: Routable): void {
    doorway.admitted(client);
    counters.admitted += 1;
    carry(client, binding, {
      limits,
      streams,
      onPassed: (up, down) => {
        counters.bytesToEngines += up;
        counters.bytesToClients += down;
      },
      mayPass: () => {
        if (!lease.holds()) return false;
        if (binding.expiresAt.getTime() > clock.wall()) return true;
        wereCut('expired', streams.cut(binding.bindingId), binding.bindingId);
        return false;
      },
      onSlow: () => {
        options.source.wake(binding.hostId).catch(() => undefined);
      },
      onUnreachable: (error) => {
        logger.warn(
          { err: error, bindingId: binding.bindingId, hostId: binding.hostId },
          'an engine does not answer',
        );
        turnAway(client, 'engine-unreachable');
      },
    });
  }

  function wereCut(reason: CutReason, count: number, bindingId?: string): void {
    if (count === 0) return;
    counters.cut[reason] += count;
    logger.info({ reason, streams: count, bindingId }, 'cut open connections');
  }

  return {
    async start() {
      await keeper.start();
      try {
        const port = await doorway.listen(options.port, options.host);
        return { port };
      } catch (cause) {
        await keeper.stop();
        throw new Error(
          `The gateway can't listen on port ${options.port}${options.host === undefined ? '' : ` of ${options.host}`} (${errorMessage(cause)}): end what uses it, or give the gateway another port.`,
          { cause },
        );
      }
    },
    async stop() {
      stopped = true;
      doorway.close();
      wereCut('stopped', streams.cutAll());
      await keeper.stop();
    },
    replaceTls(next) {
      tlsServer.setSecureContext(secureContext(next));
    },
    state: () => ({
      inSync: keeper.inSync(),
      bindingsHeld: cache.size(),
      connections: streams.total(),
      strangers: doorway.strangers(),
      counters,
    }),
  };
}

const isRoutable = (binding: LiveBinding): binding is Routable => binding.engine !== undefined;

function secureContext({ key, cert, clientAuthorities }: GatewayTls): tls.SecureContextOptions {
  if (clientAuthorities.length === 0) throw new Error('clientAuthorities is empty: nobody could connect');
  return {
    key,
    cert,
    ca: [...clientAuthorities],
    minVersion: 'TLSv1.2',
    // A resumed session would bring its certificate along without proof, and also after its expiry. Without
    // tickets and with no store for sessions there is none. Renegotiation could change who is connected.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
}
