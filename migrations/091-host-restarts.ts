import type { Knex } from 'knex';

/** Hosts whose VM has ended lately: how often in a row, and when the next restart may begin. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    CREATE TABLE host_restarts (
      host_id uuid PRIMARY KEY REFERENCES hosts (id),
      restarts integer NOT NULL CHECK (restarts >= 0),
      ended_at timestamptz,
      retry_at timestamptz NOT NULL
    )`);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP TABLE host_restarts');
}
