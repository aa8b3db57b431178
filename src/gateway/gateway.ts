import type tls from 'node:tls';
import type { GatewayTls } from '../certificates/gateway-tls.ts';
import type { LiveBinding, LiveBindingsSource } from '../core/ports/live-bindings.ts';
import { identify } from './authenticate.ts';
import { createBindingSync } from './binding-sync.ts';
import { systemClock, type Clock } from './clock.ts';
import { createConnectionGate } from './connection-gate.ts';
import { createCounters, type CutReason, type GatewayState } from './counters.ts';
import { createEventLog } from './event-log.ts';
import { createHandshakes, type SecureClient } from './handshakes.ts';
import { createLease } from './lease.ts';
import { defaultLimits, type GatewayLimits } from './limits.ts';
import { createLiveCache } from './live-cache.ts';
import { createPlaces } from './places.ts';
import { proxy, type Routable } from './proxy.ts';
import { refuse, type RefusalReason } from './refusal.ts';
import { createStreamBuffers } from './stream-buffers.ts';
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
  /** Length of the lease, in milliseconds. An unbind waits that long for a gateway whose process hangs. */
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
  const events = createEventLog({ logger, now: () => clock.monotonic() });
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
      streams.setAsleep(binding.bindingId, binding.asleep);
    },
  });
  const waker = createWaker({
    requestWake: (hostId) => options.source.wake(hostId),
    timeoutMs: limits.wakeTimeoutMs,
  });
  const lease = createLease({
    ...{ clock, leaseMs },
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
  const buffers = createStreamBuffers({
    limit: limits.maxBufferedBytes,
    ...{ maxStalled: limits.maxStalledStreams, stalledAfterMs: limits.stalledAfterMs },
    onCut: ({ tenantId }) => {
      counters.cut.stalled += 1;
      events('info', 'stalled', { tenantId }, 'Stream cut: its reader stalled, and too much was buffered');
    },
  });
  const places = createPlaces(limits);
  const handshakes = createHandshakes({
    ...{ tls: options.tls, limits },
    onSecure(secure) {
      // Only after the handshake: docker ends its input and continues to read.
      secure.client.allowHalfOpen = true;
      receive(secure).catch((error: unknown) => {
        logger.error({ err: error }, 'Connection handler failed; connection closed');
        secure.client.destroy();
      });
    },
    onFailed: (code) => {
      counters.failedHandshakes += 1;
      events('info', 'failed-handshake', { code }, 'Unauthenticated connection dropped');
    },
    onExcess: (socket) => {
      gate.drop(socket, 'too-much');
    },
  });
  const gate = createConnectionGate({
    limits,
    onConnection: (socket, source) => {
      handshakes.begin(socket, source);
    },
    onDropped: (reason, source) => {
      counters.dropped[reason] += 1;
      events('info', reason, { source }, 'Unauthenticated connection dropped');
    },
    onError: (error) => {
      logger.error({ err: error }, 'Listening socket failed; the gateway may accept no new connections');
    },
  });

  async function receive(secure: SecureClient): Promise<void> {
    const { client, source } = secure;
    const { serial, refusal } = identify(client);
    if (refusal !== undefined) {
      reject(client, refusal, { source });
      return;
    }
    let route = authorise(serial);
    // The binding has not connected here recently, or the client is faster than its notification.
    if (route === 'unknown') route = (await sync.lookUp(serial)) ? authorise(serial) : 'look-up-failed';
    if (client.destroyed || secure.socket.destroyed) return;
    if (typeof route === 'string') {
      reject(client, route, { source });
      return;
    }
    const release = places.take(route);
    if (typeof release === 'string') {
      reject(client, release, { source, ...nameOf(route) });
      return;
    }
    client.once('close', release);
    secure.refund();
    gate.admitted(secure.socket);
    await serve(client, serial, route);
  }

  /** Connects an authenticated client to its host, which is woken if need be. */
  async function serve(client: tls.TLSSocket, serial: string, binding: Routable): Promise<void> {
    let route: Routable | RefusalReason = binding;
    if (binding.asleep) {
      const outcome = await waker.wake(binding);
      // Checked again: the binding may have been revoked while the host woke.
      route = outcome === 'awake' ? authorise(serial) : outcome;
    }
    if (client.destroyed) return;
    if (typeof route === 'string') rejectInTime(client, route, nameOf(binding));
    else admit(client, route);
  }

  /** The binding that a certificate may use now, or why it may not. */
  function authorise(serial: string): Routable | RefusalReason {
    if (stopped || !sync.inSync()) return 'out-of-sync';
    const binding = cache.bySerial(serial);
    if (binding === undefined) return 'unknown';
    if (binding.expiresAt.getTime() <= clock.wall()) return 'expired';
    if (!isRoutable(binding)) return 'host-away';
    return binding;
  }

  function reject(client: tls.TLSSocket, reason: RefusalReason, details: object): void {
    counters.refused[reason] += 1;
    events(reason === 'engine-unreachable' ? 'warn' : 'info', reason, details, 'Connection refused');
    refuse(client, reason);
  }

  /** The same for a client to which the gate's limit in time no longer applies. */
  function rejectInTime(client: tls.TLSSocket, reason: RefusalReason, details: object): void {
    const timer = setTimeout(() => client.destroy(), limits.handshakeTimeoutMs);
    client.once('close', () => {
      clearTimeout(timer);
    });
    reject(client, reason, details);
  }

  function admit(client: tls.TLSSocket, binding: Routable): void {
    counters.admitted += 1;
    proxy(client, binding, {
      ...{ limits, streams, buffers },
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
      // The cached binding has the time of the last refusal.
      wake: () => waker.wake(cache.bySerial(binding.serial) ?? binding),
      onNotWoken: (outcome) => {
        counters.cut['not-woken'] += 1;
        const details = { outcome, ...nameOf(binding) };
        events('info', 'not-woken', details, 'Stream cut: its host could not be woken for its client');
      },
      onUnreachable: (error) => {
        rejectInTime(client, 'engine-unreachable', { err: error, ...nameOf(binding) });
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
      handshakes.close();
      countCut('stopped', streams.cutAll());
      await sync.stop();
    },
    replaceTls(next) {
      handshakes.replaceTls(next);
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

/** A binding in a line of the log. */
const nameOf = ({ bindingId, hostId }: Routable) => ({ bindingId, hostId });

const isRoutable = (binding: LiveBinding): binding is Routable => binding.engine !== undefined;
