import type { Knex } from 'knex';
import type { GatewayCounts } from '../core/ports/gateway-counts.ts';

export function createGatewayCounts(database: Knex): GatewayCounts {
  return {
    async add(counts) {
      // In the same order everywhere: gateways that add at the same time would lock each other out otherwise.
      await database.raw(
        `INSERT INTO gateway_counts (event, reason, count)
         SELECT event, reason, count FROM unnest(?::text[], ?::text[], ?::bigint[]) AS added (event, reason, count)
         ORDER BY event, reason
         ON CONFLICT (event, reason) DO UPDATE SET count = gateway_counts.count + excluded.count`,
        [
          counts.map(({ event }) => event),
          counts.map(({ reason }) => reason),
          counts.map(({ count }) => count),
        ],
      );
    },
  };
}
