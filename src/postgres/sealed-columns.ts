import type { Knex } from 'knex';
import type { SealedData } from '../core/ports/sealed-data.ts';

/** A column whose values are sealed under a master key. */
export interface SealedColumn {
  readonly table: string;
  readonly column: string;
  /** Primary key of the table: a UUID. */
  readonly key: string;
  /** What a value is bound to, the `row` of {@link Vault.seal}, as an SQL expression. */
  readonly row: string;
}

/** Every sealed column; a test fails if a column `sealed_…` is missing here. */
export const sealedColumns: readonly SealedColumn[] = [
  {
    table: 'bindings',
    column: 'sealed_credentials',
    key: 'id',
    row: `'bindings/' || id || '/credentials'`,
  },
  {
    table: 'certificate_authorities',
    column: 'sealed_key',
    key: 'id',
    row: `'authorities/' || id || '/key'`,
  },
];

const batchSize = 200;

/** Everything that is sealed in Postgres. */
export function createSealedData(database: Knex): SealedData {
  return {
    async rewrapAll(rewrap, isStopped) {
      let replaced = 0;
      const damaged: string[] = [];
      for (const sealedColumn of sealedColumns) {
        const { table, column, key, row } = sealedColumn;
        for (let after: string | undefined, more = true; more && !isStopped();) {
          const { rows } = await database.raw<{ rows: { key: string; row: string; sealed: Buffer }[] }>(
            `SELECT ${key}::text AS key, ${row} AS row, ${column} AS sealed FROM ${table}
             WHERE ${column} IS NOT NULL ${after === undefined ? '' : `AND ${key} > :after::uuid`}
             ORDER BY ${key} LIMIT ${batchSize}`,
            { after: after ?? null },
          );
          after = rows.at(-1)?.key;
          more = rows.length === batchSize;
          const changes = rows.flatMap(({ key: id, row: boundTo, sealed }) => {
            try {
              const rewrapped = rewrap(sealed, boundTo);
              return rewrapped === undefined ? [] : [{ id, sealed, rewrapped }];
            } catch {
              damaged.push(boundTo);
              return [];
            }
          });
          if (changes.length > 0) replaced += await replace(database, sealedColumn, changes);
        }
      }
      return { replaced, damaged };
    },
  };
}

async function replace(
  database: Knex,
  { table, column, key }: SealedColumn,
  changes: readonly { id: string; sealed: Buffer; rewrapped: Buffer }[],
): Promise<number> {
  const { rowCount } = await database.raw<{ rowCount: number }>(
    `UPDATE ${table} SET ${column} = change.rewrapped
     FROM unnest(:ids::uuid[], :sealed::bytea[], :rewrapped::bytea[]) AS change (id, sealed, rewrapped)
     WHERE ${table}.${key} = change.id AND ${table}.${column} = change.sealed`,
    {
      ids: changes.map(({ id }) => id),
      sealed: changes.map(({ sealed }) => sealed),
      rewrapped: changes.map(({ rewrapped }) => rewrapped),
    },
  );
  return rowCount;
}
