import type { Knex } from 'knex';
import type { Revocations } from '../core/operations/step.ts';
import { channels } from './channels.ts';
import type { Listener } from './listener.ts';
import { waitFor } from './wait.ts';

/** The gateways that could still hold a connection open: those with a lease, at this moment. */
const leaseHolders = `SELECT id FROM gateways WHERE lease_until > clock_timestamp()`;

/**
 * Of these gateways, those that have neither acknowledged all of these bindings nor lost their lease. A
 * gateway that connects again takes a new id, so the old one's lease runs out by itself.
 */
const stillOpen = `
  SELECT count(*)::integer AS pairs
  FROM gateways, unnest(:bindings::uuid[]) AS binding
  WHERE gateways.id = ANY (:gateways::uuid[]) AND lease_until > clock_timestamp()
    AND NOT EXISTS (
      SELECT FROM revocation_acknowledgements AS acknowledged
      WHERE acknowledged.gateway_id = gateways.id AND acknowledged.binding_id = binding)`;

/** No lease is longer; in milliseconds. Beyond it nothing can be open, so nothing is waited for. */
const longestWaitMs = 20_000;

/** Waits for the gateways' acknowledgements. */
export function createRevocations(database: Knex, listener: Listener): Revocations {
  return {
    async settled(bindingIds) {
      if (bindingIds.length === 0) return;
      const bindings = [...bindingIds];
      // Asked after the revocation was committed: a gateway that registers later has read it already.
      const { rows } = await database.raw<{ rows: { id: string }[] }>(leaseHolders);
      const gateways = rows.map(({ id }) => id);
      const settled = await waitFor(
        listener,
        channels.acknowledgements,
        (id) => bindingIds.includes(id),
        async () => {
          const open = await database.raw<{ rows: { pairs: number }[] }>(stillOpen, { bindings, gateways });
          return open.rows[0]?.pairs === 0 ? true : undefined;
        },
        longestWaitMs,
      );
      if (settled !== true) {
        throw new Error('a gateway neither acknowledged the revocation nor lost its lease');
      }
      await database.transaction(async (transaction) => {
        await transaction('bindings')
          .whereIn('id', bindings)
          .whereNull('settled_at')
          .update({ settled_at: new Date() });
        await transaction('revocation_acknowledgements').whereIn('binding_id', bindings).delete();
      });
    },
  };
}
