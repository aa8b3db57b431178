import type { Knex } from 'knex';

/** The installation that the database belongs to: one row, written once by `npm start`. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    CREATE TABLE installation (
      id uuid PRIMARY KEY,
      -- The short name of the installation on its node; only a worker whose state directory has it may use the database.
      site text NOT NULL CHECK (site ~ '^[0-9a-f]{4}$'),
      created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE UNIQUE INDEX installation_is_one_row ON installation ((true));
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP TABLE installation');
}
