import type { Knex } from 'knex';

/** When the memory that a host was suspended to last turned out to be unusable; null: never. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE hosts ADD COLUMN memory_lost_at timestamptz');
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE hosts DROP COLUMN memory_lost_at');
}
