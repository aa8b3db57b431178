import { randomUUID } from 'node:crypto';
import net from 'node:net';
import pg from 'pg';
import type { BindingEvents, LiveBinding, LiveBindingsSource } from '../core/ports/live-bindings.ts';
import type { HostPower } from '../core/model/host.ts';
import { channels } from './channels.ts';
import type { ConnectionCheck } from './database-history.ts';
import type { LeaseRenewal } from './lease-renewal.ts';
import { requestPowerSql } from './records/power.ts';
import { toEngine } from './records/rows.ts';
import { leaseMoment, SharedLease } from './shared-lease.ts';

interface LiveBindingRow {
  id: string;
  serial: string;
  expires_at: Date;
  host_id: string;
  tenant_id: string;
  engine_host: string | null;
  engine_port: number | null;
  power: HostPower;
  wake_refused_at: Date | null;
}

const selectSql = `
  SELECT bindings.id, serial, expires_at, hosts.id AS host_id, bindings.tenant_id, engine_host, engine_port,
    power, wake_refused_at
  FROM bindings JOIN hosts ON hosts.instance_id = bindings.instance_id AND hosts.state <> 'destroyed'
  WHERE bindings.state = 'live'`;

const takeLeaseSql = `
  UPDATE gateways SET lease_until = clock_timestamp() + $2 * interval '1 millisecond', connections = $3
  WHERE id = $1`;
const renewLeaseSql = `${takeLeaseSql} AND lease_until > clock_timestamp()`;

const acknowledgeSql = `
  WITH acknowledged AS (
    INSERT INTO revocation_acknowledgements (binding_id, gateway_id)
    SELECT binding_id, $2 FROM unnest($1::uuid[]) AS binding_id ON CONFLICT DO NOTHING)
  SELECT pg_notify('${channels.acknowledgements}', binding_id::text) FROM unnest($1::uuid[]) AS binding_id`;

/**
 * A query without an answer after this time fails, and its connection is dropped. Longer than a lease: the answer
 * may wait for this thread, while another renews the lease. Milliseconds.
 */
const queryTimeoutMs = 10_000;
/** A connection that can't be closed in order within this time is dropped. Milliseconds. */
const closeTimeoutMs = 500;

/**
 * The gateway's view of Postgres. Each connection registers as a new gateway after it has begun to listen: once the
 * registration is visible, this gateway receives every later revocation.
 */
export function createLiveBindingsSource(deps: {
  connectionString: string;
  /** Runs on each new connection; if it throws, the gateway stays out of sync. Default: none. */
  check?: ConnectionCheck;
  /** Number of open connections, for operators. */
  connections: () => number;
  /** Renews the lease as well while this thread is busy; undefined: this thread alone renews it. */
  renewal?: LeaseRenewal;
}): LiveBindingsSource {
  let client: pg.Client | undefined;
  let disconnect: () => Promise<void> = () => Promise.resolve();
  let gatewayId = randomUUID();
  let shared = new SharedLease();

  const connected = (): pg.Client => {
    if (client === undefined) throw new Error('not connected to Postgres');
    return client;
  };
  const query = async (text: string, values: unknown[]): Promise<LiveBinding[]> =>
    (await connected().query<LiveBindingRow>(text, values)).rows.map(toLiveBinding);

  async function open(events: BindingEvents): Promise<void> {
    await disconnect();
    const socket = new net.Socket();
    const next = new pg.Client({
      connectionString: deps.connectionString,
      stream: () => socket,
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
    disconnect = () => close(next, socket);
    gatewayId = randomUUID();
    shared = new SharedLease();
    next.on('notification', ({ channel, payload = '' }) => {
      if (channel === channels.bindings) events.changed(payload);
    });
    try {
      await next.connect();
      await deps.check?.(next);
      await next.query(`LISTEN ${channels.bindings}`);
      // The lease begins with the first renewal, before the gateway reads any binding: so each revocation is either
      // visible in what it reads, or waits for its acknowledgement.
      await next.query('INSERT INTO gateways (id, lease_until) VALUES ($1, clock_timestamp())', [gatewayId]);
    } catch (error) {
      await disconnect();
      throw error;
    }
    client = next;
  }

  async function updateLease(sql: string, leaseMs: number): Promise<void> {
    const [lease, from] = [shared, leaseMoment()];
    const { rowCount } = await connected().query(sql, [gatewayId, leaseMs, deps.connections()]);
    if (rowCount !== 1) throw new Error('the lease has run out in Postgres');
    // An answer over this connection comes after all earlier notifications.
    lease.alive(from);
  }

  return {
    open,
    async close() {
      client = undefined;
      shared = new SharedLease();
      deps.renewal?.renew(undefined);
      await disconnect();
    },
    read: (bindingIds) => query(`${selectSql} AND bindings.id = ANY ($1::uuid[])`, [bindingIds]),
    readBySerial: (serials) => query(`${selectSql} AND serial = ANY ($1::text[])`, [serials]),
    async wake(hostId) {
      await connected().query(requestPowerSql('$1', '$2'), [hostId, 'running']);
    },
    async takeLease(leaseMs) {
      const lease = shared;
      await updateLease(takeLeaseSql, leaseMs);
      if (lease === shared) deps.renewal?.renew({ gatewayId, leaseMs, buffer: lease.buffer });
      return () => lease.sinceRenewal();
    },
    renewLease: (leaseMs) => updateLease(renewLeaseSql, leaseMs),
    async acknowledge(bindingIds) {
      await connected().query(acknowledgeSql, [bindingIds, gatewayId]);
    },
    async releaseLease() {
      deps.renewal?.renew(undefined);
      await connected().query('DELETE FROM gateways WHERE id = $1', [gatewayId]);
    },
  };
}

/** Closes the connection in order; drops it if Postgres does not answer in time. */
async function close(client: pg.Client, socket: net.Socket): Promise<void> {
  const timer = setTimeout(() => socket.destroy(), closeTimeoutMs);
  await client.end().catch(() => undefined);
  clearTimeout(timer);
  socket.destroy();
}

function toLiveBinding(row: LiveBindingRow): LiveBinding {
  return {
    bindingId: row.id,
    serial: row.serial,
    expiresAt: row.expires_at,
    hostId: row.host_id,
    tenantId: row.tenant_id,
    engine: toEngine(row),
    asleep: row.power !== 'running',
    wakeRefusedAt: row.wake_refused_at ?? undefined,
  };
}
