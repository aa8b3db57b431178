import type { Knex } from 'knex';

/** When the last check of a host failed, and why; null once a later check has succeeded. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(
    'ALTER TABLE host_checks ADD COLUMN failed_at timestamptz, ADD COLUMN failure text, ADD CHECK ((failed_at IS NULL) = (failure IS NULL))',
  );
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('ALTER TABLE host_checks DROP COLUMN failed_at, DROP COLUMN failure');
}
