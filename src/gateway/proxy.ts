import net from 'node:net';
import type { EngineAddress } from '../core/hypervisor/network.ts';
import type { LiveBinding } from '../core/ports/live-bindings.ts';
import type { GatewayLimits } from './limits.ts';
import { relay } from './relay.ts';
import type { Stream, Streams } from './streams.ts';

/** A live binding whose host has an address. */
export type Routable = LiveBinding & { readonly engine: EngineAddress };

/**
 * Leads an admitted client to its host's engine, and keeps the two together until both are closed. From the
 * first moment it stands among the open streams, so that a revocation also cuts what is still connecting.
 */
export function carry(
  client: net.Socket,
  binding: Routable,
  parts: {
    limits: GatewayLimits;
    streams: Streams;
    /** Asked for each piece of data before it is passed on. */
    mayPass: () => boolean;
    onPassed: (up: number, down: number) => void;
    /** The engine takes its time. */
    onSlow: () => void;
    /** The engine took no connection: the client, of which nothing was read, is to be told. */
    onUnreachable: (error: Error) => void;
  },
): void {
  const { limits, streams } = parts;
  const engine = net.connect({
    ...{ host: binding.engine.host, port: binding.engine.port },
    ...{ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.keepAliveMs },
  });
  const stream: Stream = {
    cut() {
      engine.destroy();
      client.destroy();
    },
  };
  streams.add(binding, stream);

  const connecting = setTimeout(() => {
    engine.destroy(new Error(`no connection within ${limits.connectTimeoutMs} ms`));
  }, limits.connectTimeoutMs);
  const slow = setTimeout(parts.onSlow, limits.slowConnectMs);
  engine.once('connect', () => {
    clearTimeout(connecting);
    clearTimeout(slow);
    engine.off('error', unreachable);
    engine.on('error', () => undefined);
    relay(client, engine, parts.mayPass, parts.onPassed);
  });
  engine.once('error', unreachable);
  for (const side of [client, engine]) {
    side.once('close', () => {
      clearTimeout(connecting);
      clearTimeout(slow);
      if (client.closed && engine.closed) streams.remove(binding, stream);
    });
  }
  client.once('close', () => {
    if (engine.connecting) engine.destroy();
  });

  function unreachable(error: Error): void {
    engine.on('error', () => undefined);
    if (client.destroyed) return;
    parts.onUnreachable(error);
    const patience = setTimeout(stream.cut, limits.handshakeTimeoutMs);
    client.once('close', () => {
      clearTimeout(patience);
    });
  }
}
