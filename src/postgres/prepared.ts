import type { Knex } from 'knex';

/**
 * Runs a statement that Postgres parses and plans once for each connection, since for short statements of frequent requests
 * that takes longer than running them. Only for those that any plan serves: it is kept while tables grow, until their
 * statistics are renewed.
 * @param name unique for the statement.
 * @param sql names its columns: with `*`, it would fail on open connections after a migration that adds one.
 */
export async function runPrepared<Row>(
  connection: Knex,
  name: string,
  sql: string,
  bindings: Knex.ValueDict = {},
): Promise<Row[]> {
  const { rows } = await connection.raw<{ rows: Row[] }>(sql, bindings).options({ name });
  return rows;
}
