import { randomUUID } from 'node:crypto';
import pg from 'pg';
import type { BindingEvents, LiveBinding, LiveBindingsSource } from '../core/live-bindings.ts';
import { channels } from './channels.ts';
import { toEngine } from './rows.ts';

interface LiveBindingRow {
  id: string;
  serial: string;
  expires_at: Date;
  host_id: string;
  engine_host: string | null;
  engine_port: number | null;
}

const select = `
  SELECT bindings.id, serial, expires_at, hosts.id AS host_id, engine_host, engine_port
  FROM bindings JOIN hosts ON hosts.instance_id = bindings.instance_id AND hosts.state <> 'destroyed'
  WHERE bindings.state = 'live'`;

const renew = `
  UPDATE gateways SET lease_until = clock_timestamp() + $2 * interval '1 millisecond', connections = $3
  WHERE id = $1`;

const acknowledge = `
  WITH acknowledged AS (
    INSERT INTO revocation_acknowledgements (binding_id, gateway_id) VALUES ($1, $2) ON CONFLICT DO NOTHING)
  SELECT pg_notify('${channels.acknowledgements}', $1::text)`;

/** A query that has had no answer for so long is given up, and the connection with it. Milliseconds. */
const queryTimeoutMs = 4_000;

/**
 * The gateway's view of Postgres. Each connection registers as a gateway of its own, after it has begun to
 * listen: so whoever sees the registration knows that this gateway hears every later revocation.
 */
export function createLiveBindingsSource(parts: {
  connectionString: string;
  /** Number of open connections, for operators. */
  connections: () => number;
}): LiveBindingsSource {
  let client: pg.Client | undefined;
  let gatewayId = randomUUID();

  const connected = (): pg.Client => {
    if (client === undefined) throw new Error('not connected to Postgres');
    return client;
  };
  const query = async (text: string, values: unknown[]): Promise<LiveBinding[]> =>
    (await connected().query<LiveBindingRow>(text, values)).rows.map(toLiveBinding);

  async function open(events: BindingEvents): Promise<void> {
    await client?.end().catch(() => undefined);
    const next = new pg.Client({
      connectionString: parts.connectionString,
      application_name: 'berth-gateway',
      keepAlive: true,
      connectionTimeoutMillis: 5_000,
      query_timeout: queryTimeoutMs,
    });
    let lost = false;
    const lose = (error: Error) => {
      if (lost || client !== next) return;
      lost = true;
      client = undefined;
      events.lost(error);
    };
    next.on('error', lose);
    next.on('end', () => {
      lose(new Error('the connection to Postgres ended'));
    });
    gatewayId = randomUUID();
    next.on('notification', ({ channel, payload = '' }) => {
      if (channel === channels.bindings) events.changed(payload);
    });
    try {
      await next.connect();
      await next.query(`LISTEN ${channels.bindings}`);
      // Its lease begins with the first renewal, which the gateway makes before it reads: so a revocation is
      // either in what it reads, or waits for its acknowledgement.
      await next.query('INSERT INTO gateways (id, lease_until) VALUES ($1, clock_timestamp())', [gatewayId]);
    } catch (error) {
      await next.end().catch(() => undefined);
      throw error;
    }
    client = next;
  }

  return {
    open,
    async close() {
      const last = client;
      client = undefined;
      await last?.end().catch(() => undefined);
    },
    readAll: () => query(select, []),
    read: async (bindingId) => (await query(`${select} AND bindings.id = $1`, [bindingId]))[0],
    readBySerial: async (serial) => (await query(`${select} AND serial = $1`, [serial]))[0],
    async renewLease(leaseMs) {
      const { rowCount } = await connected().query(renew, [gatewayId, leaseMs, parts.connections()]);
      if (rowCount !== 1) throw new Error('this gateway is not on record any more');
    },
    async acknowledge(bindingId) {
      await connected().query(acknowledge, [bindingId, gatewayId]);
    },
    async releaseLease() {
      await connected().query('DELETE FROM gateways WHERE id = $1', [gatewayId]);
    },
  };
}

function toLiveBinding(row: LiveBindingRow): LiveBinding {
  return {
    bindingId: row.id,
    serial: row.serial,
    expiresAt: row.expires_at,
    hostId: row.host_id,
    engine: toEngine(row),
  };
}
