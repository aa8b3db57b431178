import net from 'node:net';
import type { EngineAddress } from '../core/hypervisor/network.ts';
import type { LiveBinding } from '../core/ports/live-bindings.ts';
import type { GatewayLimits } from './limits.ts';
import { relay } from './relay.ts';
import type { BufferedStream, StreamBuffers } from './stream-buffers.ts';
import type { Stream, Streams } from './streams.ts';

/** A live binding whose host has an address. */
export type Routable = LiveBinding & { readonly engine: EngineAddress };

/**
 * Connects an admitted client to its host's engine and relays until both are closed. The stream is registered
 * before the connection is made, so that a revocation also cuts a stream that is still connecting.
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
    /** The engine accepted no connection. Nothing was read from the client, which still needs an answer. */
    onUnreachable: (error: Error) => void;
  },
): void {
  const { limits, streams, buffers } = deps;
  const engine = net.connect({
    ...{ host: binding.engine.host, port: binding.engine.port },
    ...{ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.keepAliveMs },
  });
  const stream: Stream & BufferedStream = {
    tenantId: binding.tenantId,
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
    relay(client, engine, {
      bufferLimit: limits.maxBufferedBytesPerDirection,
      mayPass: deps.mayPass,
      onPassed: deps.onPassed,
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
