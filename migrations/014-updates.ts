import type { Knex } from 'knex';

/** The target of an update, and which image hosts and workers have. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    INSERT INTO operation_kinds VALUES ('update');
    ALTER TABLE operations ADD COLUMN target jsonb, ADD CHECK ((kind = 'update') = (target IS NOT NULL));
    ALTER TABLE hosts ADD COLUMN image_version text;
    ALTER TABLE workers ADD COLUMN image_version text;
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE workers DROP COLUMN image_version;
    ALTER TABLE hosts DROP COLUMN image_version;
    DELETE FROM operations WHERE kind = 'update';
    ALTER TABLE operations DROP COLUMN target;
    DELETE FROM operation_kinds WHERE kind = 'update';
  `);
}
