import type { Knex } from 'knex';
import pg from 'pg';
import { migrationSource } from '../../../migrations/index.ts';
import { lockMigrations } from '../database.ts';
import { BackupError, type BackupHeader, readBackupRecords } from './backup-file.ts';
import { type Table, tablesOf } from './tables.ts';

/**
 * Replaces all of Berth's tables by those of a backup, in one transaction: if anything interrupts it, the database is as it
 * was. The tables are those of the version that wrote the backup; the next start brings them up to date.
 * @param owner a pool of one connection of the owner of the tables.
 * @throws BackupError if other sessions use the database, or the backup is damaged or of a newer version.
 */
export async function restoreBackup(
  owner: Knex,
  file: string,
  header: BackupHeader,
): Promise<{ tables: number; rows: number }> {
  return owner.transaction(async (transaction) => {
    await lockMigrations(transaction);
    await requireNobodyElse(transaction);
    const migrations = await migrationsOf(header);
    await removeTables(transaction);
    await transaction.migrate.latest({ migrationSource: migrations });
    const tables = await tablesOf(transaction);
    const foreignKeys = await dropForeignKeys(transaction);
    await eachTable(transaction, tables, (name) => `ALTER TABLE ${name} DISABLE TRIGGER USER`);
    await emptyTables(transaction, tables);
    const restored = await insertRows(transaction, tables, file);
    await eachTable(transaction, tables, (name) => `ALTER TABLE ${name} ENABLE TRIGGER USER`);
    for (const { table, name, definition } of foreignKeys) {
      await transaction.raw(`ALTER TABLE ${table} ADD CONSTRAINT ${name} ${definition}`);
    }
    await advanceSequences(transaction);
    await markAsRestored(transaction);
    return restored;
  });
}

/** A process that uses the database has data in memory that the restored rows contradict. */
async function requireNobodyElse(transaction: Knex): Promise<void> {
  const { rows } = await transaction.raw<{ rows: { name: string }[] }>(
    `SELECT DISTINCT usename AS name FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename IS NOT NULL`,
  );
  if (rows.length === 0) return;
  throw new BackupError(
    `The database is in use, by ${rows.map(({ name }) => name).join(', ')}. Nothing was changed. Stop all processes of Berth, on every node, and close other sessions.`,
  );
}

async function removeTables(transaction: Knex): Promise<void> {
  const tables = await tablesOf(transaction);
  if (tables.length === 0) return;
  await eachTable(transaction, tables, (name) => `ALTER TABLE ${name} DISABLE TRIGGER USER`);
  await emptyTables(transaction, tables);
  await transaction.migrate.rollback({ migrationSource }, true);
}

/** The migrations that made the tables of the backup. */
async function migrationsOf({ migrations }: BackupHeader): Promise<typeof migrationSource> {
  const all = await migrationSource.getMigrations([]);
  const known = new Map(all.map((one) => [one.name, one]));
  const ofBackup = migrations.map((name) => {
    const migration = known.get(name);
    if (migration !== undefined) return migration;
    throw new BackupError(
      `The backup was written by a version of Berth that has the migration ${name}, which this one lacks: restore it with that version or a newer one. Nothing was changed.`,
    );
  });
  return { ...migrationSource, getMigrations: () => Promise.resolve(ofBackup) };
}

async function eachTable(
  transaction: Knex,
  tables: readonly Table[],
  statement: (name: string) => string,
): Promise<void> {
  await transaction.raw(tables.map(({ name }) => statement(pg.escapeIdentifier(name))).join('; '));
}

/** Migrations insert some rows, which the backup has as well. */
async function emptyTables(transaction: Knex, tables: readonly Table[]): Promise<void> {
  await transaction.raw(`TRUNCATE ${tables.map(({ name }) => pg.escapeIdentifier(name)).join(', ')}`);
}

interface ForeignKey {
  readonly table: string;
  readonly name: string;
  readonly definition: string;
}

/** Tables refer to each other in circles, so no order of inserts satisfies all foreign keys. */
async function dropForeignKeys(transaction: Knex): Promise<readonly ForeignKey[]> {
  const { rows } = await transaction.raw<{ rows: ForeignKey[] }>(
    `SELECT conrelid::regclass::text AS table, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition
     FROM pg_constraint WHERE contype = 'f' AND connamespace = current_schema()::regnamespace`,
  );
  for (const { table, name } of rows) await transaction.raw(`ALTER TABLE ${table} DROP CONSTRAINT ${name}`);
  return rows;
}

async function insertRows(
  transaction: Knex,
  tables: readonly Table[],
  file: string,
): Promise<{ tables: number; rows: number }> {
  const damaged = (what: string) => new BackupError(`${file} is damaged: ${what}. Nothing was changed.`);
  const restored = { tables: 0, rows: 0 };
  let insert: string | undefined;
  for await (const record of readBackupRecords(file)) {
    if (record.kind === 'table') {
      const table = tables.find(({ name }) => name === record.name);
      if (table === undefined) throw damaged(`there is no table ${record.name}`);
      insert = insertInto(table, record.columns);
      if (insert === undefined) throw damaged(`the columns of ${record.name} differ`);
      restored.tables += 1;
    } else if (record.kind === 'rows') {
      if (insert === undefined) throw damaged('its first rows belong to no table');
      const { rowCount } = await transaction.raw<{ rowCount: number }>(insert, [record.json]);
      restored.rows += rowCount;
    } else if (record.rows !== restored.rows) {
      throw damaged(`it has ${restored.rows} of ${record.rows} rows`);
    }
  }
  if (restored.tables !== tables.length)
    throw damaged(`it has ${restored.tables} of ${tables.length} tables`);
  return restored;
}

/** Undefined if the backup has other columns than the table. */
function insertInto(table: Table, columns: readonly string[]): string | undefined {
  const types = new Map(table.columns.map(({ name, type }) => [name, type]));
  if (columns.length !== types.size || columns.some((name) => !types.has(name))) return undefined;
  const values = columns.map((name, index) => `(row ->> ${index})::${types.get(name) ?? ''}`);
  return `INSERT INTO ${pg.escapeIdentifier(table.name)} (${columns.map((name) => pg.escapeIdentifier(name)).join(', ')})
    OVERRIDING SYSTEM VALUE SELECT ${values.join(', ')} FROM jsonb_array_elements(?::jsonb) AS row`;
}

/** Numbers that Postgres assigns continue after the highest that is in use. */
async function advanceSequences(transaction: Knex): Promise<void> {
  const { rows } = await transaction.raw<{ rows: { table: string; column: string; sequence: string }[] }>(
    `SELECT refobjid::regclass::text AS table, quote_ident(attname) AS column, objid::regclass::text AS sequence
     FROM pg_depend JOIN pg_class AS sequences ON sequences.oid = objid AND relkind = 'S'
     JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
     WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype IN ('a', 'i')
       AND relnamespace = current_schema()::regnamespace`,
  );
  for (const { table, column, sequence } of rows) {
    await transaction.raw(
      `SELECT setval(?, coalesce(max(${column}), 1), max(${column}) IS NOT NULL) FROM ${table}`,
      [sequence],
    );
  }
}

/** So that a worker compares the database with the node before any process uses it. */
async function markAsRestored(transaction: Knex): Promise<void> {
  if (!(await transaction.schema.hasColumn('installation', 'history'))) return;
  await transaction('installation').update({ history: 'restored from a backup' });
}
