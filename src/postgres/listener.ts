import pg from 'pg';
import type { Channel } from './channels.ts';

/** Hears notifications over a connection of its own, and connects again when that is lost. */
export interface Listener {
  /** Calls back with the payload of each notification on the channel. Returns what ends it. */
  on(channel: Channel, heard: (id: string) => void): () => void;
  /** Calls back whenever notifications may have been missed, that is after every (re)connection. */
  onReconnected(callback: () => void): () => void;
  stop(): Promise<void>;
}

/** Milliseconds between attempts to connect again. */
const retryMs = 500;

/**
 * Begins to listen on these channels.
 * @throws where Postgres can't be reached at first; later losses are mended in the background.
 */
export async function startListener(parts: {
  connectionString: string;
  listenTo: readonly Channel[];
  /** Told once per loss. */
  onLost: (error: Error) => void;
}): Promise<Listener> {
  const callbacks = new Map<string, Set<(id: string) => void>>();
  const reconnected = new Set<() => void>();
  let client: pg.Client | undefined;
  let retry: NodeJS.Timeout | undefined;
  let stopped = false;

  async function connect(): Promise<void> {
    const next = new pg.Client({
      connectionString: parts.connectionString,
      application_name: 'berth-listener',
      keepAlive: true,
      connectionTimeoutMillis: 5_000,
    });
    next.on('notification', ({ channel, payload }) => {
      for (const heard of callbacks.get(channel) ?? []) heard(payload ?? '');
    });
    let lost = false;
    const lose = (error: Error) => {
      if (lost || stopped) return;
      lost = true;
      parts.onLost(error);
      scheduleRetry();
    };
    next.on('error', lose);
    next.on('end', () => {
      lose(new Error('the connection ended'));
    });
    try {
      await next.connect();
      for (const channel of parts.listenTo) await next.query(`LISTEN ${next.escapeIdentifier(channel)}`);
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
    on(channel, heard) {
      const set = callbacks.get(channel) ?? new Set();
      callbacks.set(channel, set.add(heard));
      return () => set.delete(heard);
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
