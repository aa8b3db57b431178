import type { Knex } from 'knex';

/** The total memory of a worker's node: with what is in use, it tells how much a create may take. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE workers ADD COLUMN memory_total_mib integer');
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE workers DROP COLUMN memory_total_mib');
}
