import type { Knex } from 'knex';

/** The registry settings of a host's engine. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts ADD COLUMN registries jsonb NOT NULL
      DEFAULT '{"mirrors": [], "insecure": [], "authorities": []}' CHECK (jsonb_typeof(registries) = 'object');
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE hosts DROP COLUMN registries');
}
