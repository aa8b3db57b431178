import net from 'node:net';
import knex, { type Knex } from 'knex';
import { migrationSource } from '../../migrations/index.ts';

/** In milliseconds. */
export interface Bounds {
  /** The server ends a statement that takes longer: a lock that nobody lets go of doesn't take the whole pool. */
  readonly statement: number;
  /**
   * A connection over which nothing has come or gone for so long is dropped. Beyond the above, the server hangs, or is
   * gone without a word; the pool ends idle connections earlier.
   */
  readonly silence: number;
}

/** For roles, whose statements are all short: each may take less time than an answer may (src/http/limits.ts). */
export const roleBounds: Bounds = { statement: 20_000, silence: 45_000 };

/**
 * Opens a pool of connections. Nothing connects before the first query.
 * @param options.bounds left out: none, as for migrations, which may take long.
 */
export function openDatabase(
  connectionString: string,
  options: { maxConnections?: number; bounds?: Bounds } = {},
): Knex {
  const { bounds } = options;
  return knex({
    client: 'pg',
    connection: {
      connectionString,
      application_name: 'berth',
      ...(bounds && { statement_timeout: bounds.statement, stream: () => boundedSocket(bounds.silence) }),
    },
    pool: { min: 0, max: options.maxConnections ?? 16 },
    acquireConnectionTimeout: 15_000,
  });
}

function boundedSocket(silenceMs: number): net.Socket {
  const socket = new net.Socket();
  return socket.setTimeout(silenceMs, () => {
    socket.destroy(Object.assign(new Error('Postgres has been silent for too long'), { code: 'ETIMEDOUT' }));
  });
}

/** Brings the schema up to date. Safe to run from several processes at once: Knex holds a lock row. */
export async function migrate(database: Knex): Promise<void> {
  await database.migrate.latest({ migrationSource });
}

/** Ports that are handed out to hosts in equal blocks, one a slot. */
export interface PortBlocks {
  /** First port of the first block. */
  readonly first: number;
  /** Ports in a block. */
  readonly size: number;
  /** Number of blocks, and so of hosts. */
  readonly count: number;
}

/** Records a slot for each block of ports; slots that exist are left as they are. */
export async function seedSlots(database: Knex, blocks: PortBlocks): Promise<void> {
  await database.raw(
    'INSERT INTO slots (slot) SELECT generate_series(1, ?::integer) ON CONFLICT DO NOTHING',
    [blocks.count],
  );
}
