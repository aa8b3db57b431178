import type { Knex } from 'knex';

/**
 * The result of the last integrity check of each host, and when one was requested. Only operators end a quarantine
 * (041-releases.ts).
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts ADD COLUMN quarantined_at timestamptz;

    CREATE TABLE host_checks (
      host_id uuid PRIMARY KEY REFERENCES hosts,
      requested_at timestamptz,
      checked_at timestamptz,
      alterations jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(alterations) = 'array')
    );
    CREATE INDEX host_checks_requested ON host_checks (requested_at);
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP TABLE host_checks; ALTER TABLE hosts DROP COLUMN quarantined_at');
}
