import type { Knex } from 'knex';
import { refused } from '../core/errors.ts';
import type { Revocations } from '../core/ports/revocations.ts';
import { channels } from './channels.ts';
import type { Listener } from './listener.ts';
import { notify } from './notify.ts';
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
/**
 * Gateways are told once more where one is silent for so long, in milliseconds: one that has registered between the
 * revocation and the look at who holds a lease has not heard of it, and would never acknowledge it.
 */
const tellAgainAfterMs = 1_000;

/** Waits for the gateways' acknowledgements. */
export function createRevocations(database: Knex, listener: Listener): Revocations {
  return {
    async settled(bindingIds) {
      if (bindingIds.length === 0) return;
      const bindings = [...bindingIds];
      // After the revocation was committed: a gateway that registers later reads it when it looks the binding up.
      const { rows } = await database.raw<{ rows: { id: string }[] }>(leaseHolders);
      const gateways = rows.map(({ id }) => id);
      const begun = performance.now();
      let isToldAgain = false;
      const settled = await waitFor(
        listener,
        channels.acknowledgements,
        (id) => bindingIds.includes(id),
        async () => {
          const open = await database.raw<{ rows: { pairs: number }[] }>(stillOpen, { bindings, gateways });
          if (open.rows[0]?.pairs === 0) return true;
          if (!isToldAgain && performance.now() - begun > tellAgainAfterMs) {
            isToldAgain = true;
            for (const id of bindings) await notify(database, channels.bindings, id);
          }
          return undefined;
        },
        longestWaitMs,
      );
      if (settled !== true) {
        throw refused.unavailable(
          'A gateway has not yet told that it has cut the connections of this binding, and may still hold one open. New ones are refused. Try again in a moment.',
        );
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
