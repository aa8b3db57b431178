import type { Knex } from 'knex';

/** When an operator asked for the end of a host's quarantine; one that began after it is another one. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE host_checks ADD COLUMN release_requested_at timestamptz');
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE host_checks DROP COLUMN release_requested_at');
}
