import type { Knex } from 'knex';

/** What happened at all gateways since the installation began: `reason` is empty for an event that has no kinds. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    CREATE TABLE gateway_counts (
      event text NOT NULL,
      reason text NOT NULL,
      count bigint NOT NULL CHECK (count >= 0),
      PRIMARY KEY (event, reason)
    )`);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP TABLE gateway_counts');
}
