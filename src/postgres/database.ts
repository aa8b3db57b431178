import net from 'node:net';
import knex, { type Knex } from 'knex';
import type pg from 'pg';
import { migrationSource } from '../../migrations/index.ts';
import type { ConnectionCheck } from './database-history.ts';

export interface DatabaseTimeouts {
  /** The server cancels a statement that takes longer, so that a lock that is not released can't block the whole pool. */
  readonly statementMs: number;
  /**
   * A connection without traffic for this time is dropped. It must exceed `statementMs`: only a server that hangs or
   * has vanished is silent for longer, since the pool closes idle connections earlier.
   */
  readonly silenceMs: number;
}

/** For Berth's processes: all their statements are shorter than an answer may take (src/http/limits.ts). */
export const processTimeouts: DatabaseTimeouts = { statementMs: 20_000, silenceMs: 45_000 };

/**
 * Opens a pool of connections. Nothing connects before the first query.
 * @param options.timeouts undefined: none, as for migrations, which may take long.
 * @param options.check runs on each new connection; if it throws, so does the query that needed the connection.
 */
export function openDatabase(
  connectionString: string,
  options: { maxConnections?: number; timeouts?: DatabaseTimeouts; check?: ConnectionCheck } = {},
): Knex {
  const { timeouts, check } = options;
  return knex({
    client: 'pg',
    connection: {
      connectionString,
      application_name: 'berth',
      ...(timeouts && {
        statement_timeout: timeouts.statementMs,
        stream: () => socketWithTimeout(timeouts.silenceMs),
      }),
    },
    pool: {
      min: 0,
      max: options.maxConnections ?? 16,
      ...(check && { afterCreate: checkWith(check) }),
    },
    acquireConnectionTimeout: 15_000,
    // Knex prints errors that reach the caller as well.
    log: { warn: () => undefined },
  });
}

/** Knex's hook for new connections. It does not close one that the hook refuses. */
function checkWith(check: ConnectionCheck) {
  return (connection: pg.Client, done: (error: unknown, connection: pg.Client) => void) => {
    check(connection).then(
      () => {
        done(null, connection);
      },
      (error: unknown) => {
        void connection.end().catch(() => undefined);
        done(error, connection);
      },
    );
  };
}

function socketWithTimeout(silenceMs: number): net.Socket {
  const socket = new net.Socket();
  return socket.setTimeout(silenceMs, () => {
    socket.destroy(
      Object.assign(new Error(`Postgres has been silent for ${silenceMs} ms`), { code: 'ETIMEDOUT' }),
    );
  });
}

/** Brings the schema up to date. Fails while another process does the same. */
export async function migrate(database: Knex): Promise<void> {
  await database.migrate.latest({ migrationSource });
}

/** Id of the advisory lock of migrations; any number that nothing else uses. */
const migrationLockId = 0x62_65_72_75;
/** How long a start waits for the migrations of another one, in milliseconds. */
const migrationLockMs = 60_000;

/** Until the transaction ends, no start migrates; waits for one that does. */
export async function lockMigrations(transaction: Knex): Promise<void> {
  await transaction.raw(`SET LOCAL lock_timeout = ${migrationLockMs}`);
  await transaction.raw('SELECT pg_advisory_xact_lock(?)', [migrationLockId]);
}

/**
 * Brings the schema up to date while no other start does. A start that was killed in a migration does not block the
 * next one.
 * @param database a pool of at least two connections: one has the lock.
 * @param check runs first, under the lock; if it throws, nothing has been changed.
 */
export async function migrateAlone(database: Knex, check: () => Promise<void>): Promise<void> {
  await database.transaction(async (lock) => {
    await lockMigrations(lock);
    await check();
    // Knex's own lock is a row, which a killed process leaves behind.
    await database.migrate.forceFreeMigrationsLock({ migrationSource });
    await migrate(database);
  });
}

/** The slots of hosts, each with a block of ports. */
export interface SlotRules {
  /** First port of the first block. */
  readonly first: number;
  /** Ports in a block. */
  readonly size: number;
  /** Number of blocks, and so of hosts. */
  readonly count: number;
  /** How long a slot rests after its host was destroyed, before another tenant's host gets it. Seconds. */
  readonly restSeconds: number;
}

/** Inserts the missing slots, one per block of ports. */
export async function seedSlots(database: Knex, rules: SlotRules): Promise<void> {
  await database.raw(
    'INSERT INTO slots (slot) SELECT generate_series(1, ?::integer) ON CONFLICT DO NOTHING',
    [rules.count],
  );
}
