import net from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import pg from 'pg';
import { usablePartOfLease } from '../core/ports/live-bindings.ts';
import { errorMessage } from '../lib/error-message.ts';
import { repeat } from '../lib/repeat.ts';
import type { LeaseOrders, LeaseThreadData, LeaseThreadReport } from './lease-renewal.ts';
import { leaseMoment, SharedLease } from './shared-lease.ts';

/**
 * The program of a thread beside the gateway's: renews the lease over its own connection, however busy the gateway's
 * thread is. It never revives a lease that has run out, since unbinds may have been answered without this gateway then.
 */
const { connectionString, renewEveryMs, timeoutMs, longestStallMs } = workerData as LeaseThreadData;

const renewSql = `
  UPDATE gateways SET lease_until = clock_timestamp() + $2 * interval '1 millisecond'
  WHERE id = $1 AND lease_until > clock_timestamp()`;

interface Connection {
  readonly client: pg.Client;
  /** Ends it at once, even if the server does not answer. */
  readonly drop: () => void;
}

let orders: LeaseOrders | undefined;
let connection: Connection | undefined;

async function connect(): Promise<Connection> {
  const socket = new net.Socket();
  const client = new pg.Client({
    ...{ connectionString, stream: () => socket, application_name: 'berth-gateway-lease', keepAlive: true },
    ...{ connectionTimeoutMillis: timeoutMs, query_timeout: timeoutMs },
  });
  const drop = () => {
    if (connection?.client === client) connection = undefined;
    socket.destroy();
  };
  client.on('error', drop);
  client.on('end', drop);
  try {
    await client.connect();
  } catch (error) {
    drop();
    throw error;
  }
  return { client, drop };
}

async function renew(): Promise<void> {
  connection ??= await connect();
  if (orders === undefined) return;
  const { gatewayId, leaseMs, buffer } = orders;
  const lease = new SharedLease(buffer);
  if (lease.sinceAlive() > longestStallMs) return;
  const from = leaseMoment();
  const { rowCount } = await connection.client.query(renewSql, [gatewayId, leaseMs]);
  // An answer that comes after the end of the lease does not count: Postgres may have shown others that end.
  if (rowCount === 1 && lease.sinceEither() < leaseMs * usablePartOfLease) lease.renewed(from);
}

parentPort?.on('message', (next: LeaseOrders | undefined) => {
  orders = next;
});

let works: boolean | undefined;
function report(next: LeaseThreadReport): void {
  if (next.works !== works) parentPort?.postMessage(next);
  works = next.works;
}

repeat(
  renewEveryMs,
  async () => {
    await renew();
    report({ works: true });
  },
  (error) => {
    connection?.drop();
    report({ works: false, reason: errorMessage(error) });
  },
);
