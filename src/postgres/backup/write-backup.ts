import type { Knex } from 'knex';
import pg from 'pg';
import { createInstallationRecords } from '../installation.ts';
import { BackupError, type BackupHeader, type BackupRecord, writeBackupFile } from './backup-file.ts';
import { type Table, tablesOf } from './tables.ts';

/** Rows that are read, and later inserted, together. */
const batchSize = 500;

/**
 * Writes all rows of one moment to a file, while Berth runs or not.
 * @param owner a connection of the owner of the tables.
 * @throws BackupError if the database has no installation, or the file exists.
 */
export async function writeBackup(owner: Knex, file: string): Promise<{ tables: number; rows: number }> {
  const written = { tables: 0, rows: 0 };
  await owner.transaction(
    async (snapshot) => {
      // Values as text are to mean the same on every server.
      await snapshot.raw(
        "SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL bytea_output = 'hex'; SET LOCAL extra_float_digits = 1",
      );
      const header = await headerOf(snapshot);
      const tables = await tablesOf(snapshot);
      written.tables = tables.length;
      async function* content(): AsyncGenerator<BackupHeader | BackupRecord> {
        yield header;
        for (const table of tables) {
          yield { kind: 'table', name: table.name, columns: table.columns.map(({ name }) => name) };
          for await (const rows of batchesOf(snapshot, table)) {
            written.rows += rows.length;
            yield { kind: 'rows', json: `[${rows.join(',')}]` };
          }
        }
        yield { kind: 'end', rows: written.rows };
      }
      await writeBackupFile(file, content());
    },
    { isolationLevel: 'repeatable read', readOnly: true },
  );
  return written;
}

async function headerOf(snapshot: Knex): Promise<BackupHeader> {
  const installation = await createInstallationRecords(snapshot).find();
  if (installation === undefined) {
    throw new BackupError('The database belongs to no installation yet: there is nothing to back up.');
  }
  const keys: { id: string }[] = await snapshot('master_keys').whereNot({ state: 'retired' }).select('id');
  const migrations: { name: string }[] = await snapshot('knex_migrations').orderBy('id').select('name');
  return {
    format: 'berth-backup',
    version: 1,
    createdAt: new Date().toISOString(),
    installation: { id: installation.id, site: installation.site },
    masterKeys: keys.map(({ id }) => id),
    migrations: migrations.map(({ name }) => name),
  };
}

/** Each row as JSON: an array of its values as text, since JSON has no exact form of most types. */
async function* batchesOf(snapshot: Knex, { name, columns }: Table): AsyncGenerator<readonly string[]> {
  const values = columns.map((column) => `${pg.escapeIdentifier(column.name)}::text`).join(', ');
  await snapshot.raw(
    `DECLARE backup NO SCROLL CURSOR FOR SELECT to_json(ARRAY[${values}])::text AS row FROM ${pg.escapeIdentifier(name)}`,
  );
  for (;;) {
    const { rows } = await snapshot.raw<{ rows: { row: string }[] }>(`FETCH ${batchSize} FROM backup`);
    if (rows.length === 0) break;
    yield rows.map(({ row }) => row);
  }
  await snapshot.raw('CLOSE backup');
}
