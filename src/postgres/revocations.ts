import type { Knex } from 'knex';
import { RefusedError, refused } from '../core/errors.ts';
import type { RevocationJournal } from '../core/ports/database-history.ts';
import type { Revocations } from '../core/ports/revocations.ts';
import { channels } from './channels.ts';
import type { Listener } from './listener.ts';
import { notify } from './notify.ts';
import { waitForNotification } from './wait.ts';

/** The gateways that can have an open connection now: those with a lease. */
const leaseHoldersSql = `SELECT id FROM gateways WHERE lease_until > clock_timestamp()`;

/**
 * Counts missing acknowledgements of gateways that still have a lease. A gateway that reconnects takes a new id, so the
 * lease of its old id expires.
 */
const pendingSql = `
  SELECT count(*)::integer AS pairs
  FROM gateways, unnest(:bindings::uuid[]) AS binding
  WHERE gateways.id = ANY (:gateways::uuid[]) AND lease_until > clock_timestamp()
    AND NOT EXISTS (
      SELECT FROM revocation_acknowledgements AS acknowledged
      WHERE acknowledged.gateway_id = gateways.id AND acknowledged.binding_id = binding)`;

/** Longer than any lease: after this time no connection can be open. Milliseconds. */
const maxWaitMs = 20_000;
/**
 * The notification is repeated once after this time, in milliseconds: a gateway that registered between the revocation
 * and the query for lease holders has missed the first one, and would never acknowledge it.
 */
const repeatNotificationAfterMs = 1_000;

/**
 * Waits for the gateways' acknowledgements, and until the journal has the revocations. Every revocation comes here, and
 * comes again if its process was killed before: only then is it settled.
 */
export function createRevocations(
  database: Knex,
  listener: Listener,
  journal: RevocationJournal,
): Revocations {
  async function writeToJournal(bindingIds: readonly string[]): Promise<void> {
    const rows: { id: string; expires_at: Date }[] = await database('bindings')
      .whereIn('id', [...bindingIds])
      .select('id', 'expires_at');
    try {
      await journal.append(rows.map(({ id, expires_at: expiresAt }) => ({ bindingId: id, expiresAt })));
    } catch (cause) {
      throw new RefusedError(
        {
          status: 503,
          description:
            'The revocation could not be written to the disk of the broker; its log says why. New connections are refused. Try again in a moment.',
        },
        { cause },
      );
    }
  }

  return {
    async settled(bindingIds) {
      if (bindingIds.length === 0) return;
      const written = writeToJournal(bindingIds);
      // It is awaited below.
      written.catch(() => undefined);
      const bindings = [...bindingIds];
      // After the commit of the revocation: a gateway that registers later reads it with the binding.
      const { rows } = await database.raw<{ rows: { id: string }[] }>(leaseHoldersSql);
      const gateways = rows.map(({ id }) => id);
      const start = performance.now();
      let isRepeated = false;
      const settled = await waitForNotification(
        listener,
        channels.acknowledgements,
        (id) => bindingIds.includes(id),
        async () => {
          const open = await database.raw<{ rows: { pairs: number }[] }>(pendingSql, { bindings, gateways });
          if (open.rows[0]?.pairs === 0) return true;
          if (!isRepeated && performance.now() - start > repeatNotificationAfterMs) {
            isRepeated = true;
            for (const id of bindings) await notify(database, channels.bindings, id);
          }
          return undefined;
        },
        maxWaitMs,
      );
      await written;
      if (settled !== true) {
        throw refused.unavailable(
          'A gateway has not yet acknowledged that it has cut the connections of this binding; one may still be open. New connections are refused. Try again in a moment.',
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
