import type { Knex } from 'knex';

/** A column whose values are sealed under the master key. */
export interface SealedColumn {
  readonly table: string;
  readonly column: string;
  /** Column that tells rows apart: a UUID. */
  readonly key: string;
  /** What a value is tied to, the `row` of {@link Vault.seal}, in SQL. */
  readonly row: string;
}

/** Where anything sealed is kept; a test fails where a column `sealed_…` is missing here. */
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

/**
 * Goes once through all that is sealed and replaces what `rewrap` gives anew, a batch at a time. A value that
 * somebody changes meanwhile is left as it then is. Killed in the middle, it is begun again.
 * @param rewrap gives undefined where the value may stay; where it throws, the value is left as it is and named.
 * @returns how many were replaced, and the rows of those that could not be.
 */
export async function rewrapAll(
  database: Knex,
  rewrap: (sealed: Buffer, row: string) => Buffer | undefined,
  isStopped: () => boolean,
): Promise<{ replaced: number; damaged: readonly string[] }> {
  let replaced = 0;
  const damaged: string[] = [];
  for (const place of sealedColumns) {
    const { table, column, key, row } = place;
    for (let after: string | undefined, more = true; more && !isStopped();) {
      const { rows } = await database.raw<{ rows: { key: string; row: string; sealed: Buffer }[] }>(
        `SELECT ${key}::text AS key, ${row} AS row, ${column} AS sealed FROM ${table}
         WHERE ${column} IS NOT NULL ${after === undefined ? '' : `AND ${key} > :after::uuid`}
         ORDER BY ${key} LIMIT ${batchSize}`,
        { after: after ?? null },
      );
      after = rows.at(-1)?.key;
      more = rows.length === batchSize;
      const changes = rows.flatMap(({ key: id, row: tiedTo, sealed }) => {
        try {
          const anew = rewrap(sealed, tiedTo);
          return anew === undefined ? [] : [{ id, sealed, anew }];
        } catch {
          damaged.push(tiedTo);
          return [];
        }
      });
      if (changes.length > 0) replaced += await replace(database, place, changes);
    }
  }
  return { replaced, damaged };
}

async function replace(
  database: Knex,
  { table, column, key }: SealedColumn,
  changes: readonly { id: string; sealed: Buffer; anew: Buffer }[],
): Promise<number> {
  const { rowCount } = await database.raw<{ rowCount: number }>(
    `UPDATE ${table} SET ${column} = change.anew
     FROM unnest(:ids::uuid[], :sealed::bytea[], :anew::bytea[]) AS change (id, sealed, anew)
     WHERE ${table}.${key} = change.id AND ${table}.${column} = change.sealed`,
    {
      ids: changes.map(({ id }) => id),
      sealed: changes.map(({ sealed }) => sealed),
      anew: changes.map(({ anew }) => anew),
    },
  );
  return rowCount;
}
