import type { Knex } from 'knex';

/**
 * A platform may use the id of a deleted instance or an unbound binding again some time later (docs/osb.md 40): its row
 * stays, and `id_released_at` says that the id no longer means it. The index finds the org of a space that an app is
 * bound from (docs/osb.md 8).
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE instances
      ADD COLUMN id_released_at timestamptz CHECK (id_released_at IS NULL OR state = 'deleted'),
      DROP CONSTRAINT instances_platform_id_osb_id_key;
    CREATE UNIQUE INDEX instances_osb_id ON instances (platform_id, osb_id) WHERE id_released_at IS NULL;
    CREATE INDEX instances_of_space ON instances (platform_id, (context->>'space_guid'));
    ALTER TABLE bindings
      ADD COLUMN id_released_at timestamptz CHECK (id_released_at IS NULL OR state = 'revoked'),
      DROP CONSTRAINT bindings_instance_id_osb_id_key;
    CREATE UNIQUE INDEX bindings_osb_id ON bindings (instance_id, osb_id) WHERE id_released_at IS NULL;
  `);
}

/** Former versions know one row for each id: rows whose id was used again keep it with a suffix. */
export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    UPDATE instances SET osb_id = left(osb_id, 218) || ' ' || id WHERE id_released_at IS NOT NULL;
    UPDATE bindings SET osb_id = left(osb_id, 218) || ' ' || id WHERE id_released_at IS NOT NULL;
    DROP INDEX instances_osb_id, instances_of_space, bindings_osb_id;
    ALTER TABLE instances
      ADD CONSTRAINT instances_platform_id_osb_id_key UNIQUE (platform_id, osb_id), DROP COLUMN id_released_at;
    ALTER TABLE bindings
      ADD CONSTRAINT bindings_instance_id_osb_id_key UNIQUE (instance_id, osb_id), DROP COLUMN id_released_at;
  `);
}
