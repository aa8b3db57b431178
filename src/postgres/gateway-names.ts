import type { Knex } from 'knex';
import type { GatewayNames } from '../core/ports/gateway-names.ts';
import { channels } from './channels.ts';
import { notify } from './notify.ts';

interface GatewayNameRow {
  name: string;
}

export function createGatewayNames(database: Knex): GatewayNames {
  return {
    async replace(names) {
      await database.transaction(async (transaction) => {
        const table = () => transaction<GatewayNameRow>('gateway_names');
        const removed = await table()
          .whereNotIn('name', [...names])
          .delete();
        // Sorted, so that two apis that start at the same time don't deadlock.
        const rows = names.toSorted().map((name) => ({ name }));
        const added = await table().insert(rows).onConflict('name').ignore().returning('name');
        if (removed + added.length > 0) await notify(transaction, channels.certificateAuthorities, '');
      });
    },

    list: () => listGatewayNames(database),
  };
}

/** In alphabetical order. */
export async function listGatewayNames(database: Knex): Promise<readonly string[]> {
  return (await database<GatewayNameRow>('gateway_names').pluck('name')).sort();
}
