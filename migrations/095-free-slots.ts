import type { Knex } from 'knex';

/** The free slots in the order in which creates take them: without it, each create reads and sorts all of them. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('CREATE INDEX slots_free ON slots (rests_until NULLS FIRST, slot) WHERE host_id IS NULL');
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP INDEX slots_free');
}
