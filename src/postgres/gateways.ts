import type { Knex } from 'knex';

/** Forgets gateways whose lease ended long ago: they have died, and their connections with them. */
export async function forgetDeadGateways(database: Knex): Promise<void> {
  await database('gateways')
    .where('lease_until', '<', database.raw(`clock_timestamp() - interval '1 minute'`))
    .delete();
}

/** Forgets acknowledgements that came when nobody waited for them any more. */
export async function forgetLateAcknowledgements(database: Knex): Promise<void> {
  await database.raw(`
    DELETE FROM revocation_acknowledgements USING bindings
    WHERE bindings.id = revocation_acknowledgements.binding_id AND bindings.settled_at IS NOT NULL`);
}
