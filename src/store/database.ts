import knex, { type Knex } from 'knex';
import { migrationSource } from '../../migrations/index.ts';

/** Opens a pool of connections. Nothing connects before the first query. */
export function openDatabase(connectionString: string, options?: { maxConnections?: number }): Knex {
  return knex({
    client: 'pg',
    connection: { connectionString, application_name: 'berth' },
    pool: { min: 0, max: options?.maxConnections ?? 16 },
    acquireConnectionTimeout: 15_000,
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
