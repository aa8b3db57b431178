import type { Knex } from 'knex';

/** When an operator requested the end of a host's quarantine; it does not apply to a quarantine that began later. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE host_checks ADD COLUMN release_requested_at timestamptz');
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE host_checks DROP COLUMN release_requested_at');
}
