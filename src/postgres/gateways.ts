import type { Knex } from 'knex';
import type { GatewayRecords } from '../core/ports/gateway-records.ts';

export function createGatewayRecords(database: Knex): GatewayRecords {
  return {
    async deleteDead() {
      await database('gateways')
        .where('lease_until', '<', database.raw(`clock_timestamp() - interval '1 minute'`))
        .delete();
    },

    async deleteLateAcknowledgements() {
      await database.raw(`
        DELETE FROM revocation_acknowledgements USING bindings
        WHERE bindings.id = revocation_acknowledgements.binding_id AND bindings.settled_at IS NOT NULL`);
    },
  };
}
