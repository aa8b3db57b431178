import type { Knex } from 'knex';

/** A number of things that have ended so far, or of hosts that were made. Migration 094 says how they are counted. */
export interface Total {
  readonly subject: 'instances' | 'hosts' | 'bindings' | 'operations';
  /** The kind of operations, the plan of hosts, else empty. */
  readonly kind: string;
  /** The final state; of hosts, what they were first started from. */
  readonly state: string;
  readonly count: number;
  /** How long operations took, together. */
  readonly seconds: number;
}

export async function readTotals(database: Knex): Promise<readonly Total[]> {
  const { rows } = await database.raw<{ rows: Total[] }>(
    `SELECT subject, kind, state, sum(count)::integer AS count, sum(seconds)::float8 AS seconds
     FROM totals GROUP BY subject, kind, state`,
  );
  return rows;
}

/** Rows that may wait until they are merged; a row is an event. */
const mostRows = 500;

/**
 * Merges the rows of each total into one, if there are many. One statement, so a reader sees all rows either before or after
 * it; of two workers that merge at once, the second waits and merges what the first has left.
 */
export async function mergeTotals(database: Knex): Promise<void> {
  await database.raw(
    `WITH merged AS (DELETE FROM totals WHERE (SELECT count(*) FROM totals) > ? RETURNING *)
     INSERT INTO totals SELECT subject, kind, state, sum(count), sum(seconds) FROM merged GROUP BY subject, kind, state`,
    [mostRows],
  );
}
