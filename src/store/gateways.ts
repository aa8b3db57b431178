import type { Knex } from 'knex';

/** Forgets gateways whose lease ended long ago: they have died, and their connections with them. */
export async function forgetDeadGateways(database: Knex): Promise<void> {
  await database('gateways')
    .where('lease_until', '<', database.raw(`clock_timestamp() - interval '1 minute'`))
    .delete();
}
