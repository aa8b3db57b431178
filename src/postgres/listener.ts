import pg from 'pg';
import type { Channel } from './channels.ts';

/** Receives notifications over its own connection, and reconnects if that is lost. */
export interface Listener {
  /** Calls back with the payload of each notification on the channel. Returns what unsubscribes. */
  on(channel: Channel, callback: (id: string) => void): () => void;
  /** Calls back whenever notifications may have been missed: after every (re)connection. */
  onReconnected(callback: () => void): () => void;
  stop(): Promise<void>;
}

/** Calls back after each notification, and whenever one may have been missed. Returns what unsubscribes. */
export function onChange(listener: Listener, channel: Channel, callback: () => void): () => void {
  const unsubscribes = [listener.on(channel, callback), listener.onReconnected(callback)];
  return () => {
    for (const unsubscribe of unsubscribes) unsubscribe();
  };
}

/** Milliseconds between attempts to reconnect. */
const retryMs = 500;

/**
 * Connects and listens on these channels.
 * @throws Error if Postgres can't be reached at first; a connection that is lost later is replaced in the background.
 */
export async function startListener(deps: {
  connectionString: string;
  listenTo: readonly Channel[];
  /** Called once per loss. */
  onLost: (error: Error) => void;
}): Promise<Listener> {
  const callbacks = new Map<string, Set<(id: string) => void>>();
  const reconnected = new Set<() => void>();
  let client: pg.Client | undefined;
  let retry: NodeJS.Timeout | undefined;
  let stopped = false;

  async function connect(): Promise<void> {
    const next = new pg.Client({
      connectionString: deps.connectionString,
      application_name: 'berth-listener',
      keepAlive: true,
      connectionTimeoutMillis: 5_000,
    });
    next.on('notification', ({ channel, payload }) => {
      for (const callback of callbacks.get(channel) ?? []) callback(payload ?? '');
    });
    let lost = false;
    const lose = (error: Error) => {
      if (lost || stopped) return;
      lost = true;
      deps.onLost(error);
      scheduleRetry();
    };
    next.on('error', lose);
    next.on('end', () => {
      lose(new Error('the connection ended'));
    });
    try {
      await next.connect();
      for (const channel of deps.listenTo) await next.query(`LISTEN ${next.escapeIdentifier(channel)}`);
    } catch (error) {
      lost = true;
      await next.end().catch(() => undefined);
      throw error;
    }
    client = next;
    for (const callback of reconnected) callback();
  }

  function scheduleRetry(): void {
    retry = setTimeout(() => {
      connect().catch(() => {
        if (!stopped) scheduleRetry();
      });
    }, retryMs);
  }

  await connect();
  return {
    on(channel, callback) {
      const set = callbacks.get(channel) ?? new Set();
      callbacks.set(channel, set.add(callback));
      return () => set.delete(callback);
    },
    onReconnected(callback) {
      reconnected.add(callback);
      return () => reconnected.delete(callback);
    },
    async stop() {
      stopped = true;
      clearTimeout(retry);
      await client?.end().catch(() => undefined);
    },
  };
}
