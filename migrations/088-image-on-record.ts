import type { Knex } from 'knex';

/**
 * The version of the image that new hosts are made from belongs to the installation, and not to a worker: it is known
 * also while no worker runs.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE installation ADD COLUMN image_version text CHECK (length(image_version) <= 100);
    UPDATE installation SET image_version =
      (SELECT image_version FROM workers WHERE image_version IS NOT NULL ORDER BY seen_at DESC LIMIT 1);
    ALTER TABLE workers DROP COLUMN image_version;
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE workers ADD COLUMN image_version text;
    UPDATE workers SET image_version = (SELECT image_version FROM installation);
    ALTER TABLE installation DROP COLUMN image_version;
  `);
}
