import type { Knex } from 'knex';
import { grants } from '../server/grants.ts';

/** A table of Berth and its columns, without those that Postgres computes. */
export interface Table {
  readonly name: string;
  readonly columns: readonly { readonly name: string; readonly type: string }[];
}

/** The tables of Berth that exist, with the content that belongs in a backup: all but Knex's own. */
export async function tablesOf(database: Knex): Promise<readonly Table[]> {
  const { rows } = await database.raw<{ rows: Table[] }>(
    `SELECT relname AS name, json_agg(json_build_object('name', attname, 'type', format_type(atttypid, atttypmod))
         ORDER BY attnum) AS columns
     FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
     WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname = ANY (?)
       AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
     GROUP BY relname ORDER BY relname`,
    [Object.keys(grants)],
  );
  return rows;
}
