import net from 'node:net';
import type { EngineAddress } from '../core/hypervisor/network.ts';
import type { LiveBinding } from '../core/ports/live-bindings.ts';
import type { GatewayLimits } from './limits.ts';
import { relay } from './relay.ts';
import type { BufferedStream, StreamBuffers } from './stream-buffers.ts';
import { createStreamSleep, type StreamSleep } from './stream-sleep.ts';
import type { Stream, Streams } from './streams.ts';
import type { WakeOutcome } from './waker.ts';

/** A live binding whose host has an address. */
export type Routable = LiveBinding & { readonly engine: EngineAddress };

/**
 * Connects an admitted client to its host's engine and relays until both are closed. The stream is registered
 * before the connection is made, so that a revocation also cuts a stream that is still connecting. While the host is
 * asleep, the stream stays open (stream-sleep.ts).
 */
export function proxy(
  client: net.Socket,
  binding: Routable,
  deps: {
    limits: GatewayLimits;
    streams: Streams;
    buffers: StreamBuffers;
    /** Called for each chunk before it is passed on. */
    mayPass: () => boolean;
    onPassed: (up: number, down: number) => void;
    /** The engine has not accepted the connection within `limits.slowConnectMs`. */
    onSlow: () => void;
    /** Wakes the host for bytes of the client. */
    wake: () => Promise<WakeOutcome>;
    /** The host could not be woken for bytes of the client; the stream has been cut. */
    onNotWoken: (outcome: WakeOutcome) => void;
    /** The engine accepted no connection. Nothing was read from the client, which still needs an answer. */
    onUnreachable: (error: Error) => void;
  },
): void {
  const { limits, streams, buffers } = deps;
  const engine = net.connect({
    ...{ host: binding.engine.host, port: binding.engine.port },
    ...{ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.keepAliveMs },
  });
  let { asleep } = binding;
  let sleep: StreamSleep | undefined;
  const stream: Stream & BufferedStream = {
    tenantId: binding.tenantId,
    setAsleep(now) {
      asleep = now;
      sleep?.setAsleep(now);
    },
    cut() {
      engine.destroy();
      client.destroy();
    },
  };
  streams.add(binding, stream);

  const connectTimeout = setTimeout(() => {
    engine.destroy(new Error(`no connection within ${limits.connectTimeoutMs} ms`));
  }, limits.connectTimeoutMs);
  const slow = setTimeout(deps.onSlow, limits.slowConnectMs);
  engine.once('connect', () => {
    clearTimeout(connectTimeout);
    clearTimeout(slow);
    engine.off('error', unreachable);
    engine.on('error', () => undefined);
    const connected = createStreamSleep({
      ...{ engine, asleep, keepAliveMs: limits.keepAliveMs, wake: deps.wake },
      onNotWoken(outcome) {
        stream.cut();
        deps.onNotWoken(outcome);
      },
    });
    sleep = connected;
    relay(client, engine, {
      bufferLimit: limits.maxBufferedBytesPerDirection,
      mayPass: deps.mayPass,
      onPassed(up, down) {
        if (up > 0) connected.sent();
        else connected.answered();
        deps.onPassed(up, down);
      },
      endEngine: () => {
        connected.end();
      },
      onBuffered: (bytes) => {
        buffers.update(stream, client.destroyed || engine.destroyed ? 0 : bytes);
      },
    });
  });
  engine.once('error', unreachable);
  for (const side of [client, engine]) {
    side.once('close', () => {
      clearTimeout(connectTimeout);
      clearTimeout(slow);
      buffers.update(stream, 0);
      if (client.closed && engine.closed) streams.remove(binding, stream);
    });
  }
  client.once('close', () => {
    if (engine.connecting) engine.destroy();
  });

  function unreachable(error: Error): void {
    engine.on('error', () => undefined);
    if (client.destroyed) return;
    deps.onUnreachable(error);
  }
}
