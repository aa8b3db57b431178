import type { Knex } from 'knex';

/** The binding that a binding replaces: it is compared when a request is repeated. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(
    'ALTER TABLE bindings ADD COLUMN predecessor text CHECK (length(predecessor) BETWEEN 1 AND 255)',
  );
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE bindings DROP COLUMN predecessor');
}
