import type { Knex } from 'knex';

/** How much memory a worker's machine has: with what is in use of it, what a create may still take. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE workers ADD COLUMN memory_total_mib integer');
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE workers DROP COLUMN memory_total_mib');
}
