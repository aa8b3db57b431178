import type { Knex } from 'knex';

/** How far each worker is with the image and the templates, which it prepares while the others already serve. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE workers ADD COLUMN preparing text, ADD COLUMN preparation_problem text');
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE workers DROP COLUMN preparing, DROP COLUMN preparation_problem');
}
