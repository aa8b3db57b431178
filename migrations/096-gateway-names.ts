import type { Knex } from 'knex';

/** The names and addresses in gateways' certificates: on record, so that gateways renew theirs when they change. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw('CREATE TABLE gateway_names (name text PRIMARY KEY)');
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP TABLE gateway_names');
}
