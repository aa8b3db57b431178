import type { Knex } from 'knex';

/** Which registries a host's engine is told of. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts ADD COLUMN registries jsonb NOT NULL
      DEFAULT '{"mirrors": [], "insecure": [], "authorities": []}' CHECK (jsonb_typeof(registries) = 'object');
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE hosts DROP COLUMN registries');
}
