import type { Knex } from 'knex';

/**
 * Repairs of the network rules that all hosts of a node share, by worker. Apart from `workers`, whose rows end with an orderly
 * stop: operators see a repair for a day.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    CREATE TABLE node_rules (
      worker text PRIMARY KEY,
      repairs integer NOT NULL DEFAULT 0,
      repaired_at timestamptz,
      -- What the last repair put back.
      altered text,
      -- Why the rules can't be checked or put back at present.
      failure text
    )`);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP TABLE node_rules');
}
