import type { Knex } from 'knex';

/** Which binding a binding was made to take the place of: a repeated request is told from another by it. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(
    'ALTER TABLE bindings ADD COLUMN predecessor text CHECK (length(predecessor) BETWEEN 1 AND 255)',
  );
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE bindings DROP COLUMN predecessor');
}
