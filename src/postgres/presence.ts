import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import type { Presence, Presences, PresentProcess } from '../core/ports/presence.ts';
import { channels } from './channels.ts';
import type { Listener } from './listener.ts';
import { notify } from './notify.ts';
import { waitForNotification } from './wait.ts';

/** A process that has been silent for longer is taken for dead. */
const silenceSeconds = 15;

/** This process's own announcement. */
export function createPresence(database: Knex, process: PresentProcess): Presence {
  const id = randomUUID();
  let last: string | undefined;
  return {
    async announce(ids) {
      await database('presences')
        .insert({ id, process, announced: [...ids], seen_at: database.raw('clock_timestamp()') })
        .onConflict('id')
        .merge();
      const announced = [...ids].sort().join(' ');
      if (announced !== last) await notify(database, channels.presence, id);
      last = announced;
    },
    async leave() {
      await database('presences').where({ id }).delete();
    },
  };
}

export function createPresences(database: Knex, listener: Listener): Presences {
  async function countWithout(process: PresentProcess, id: string): Promise<number> {
    const { rows } = await database.raw<{ rows: { count: number }[] }>(
      `SELECT count(*)::integer AS count FROM presences
       WHERE process = ? AND seen_at > clock_timestamp() - interval '${silenceSeconds} seconds' AND NOT (? = ANY (announced))`,
      [process, id],
    );
    return rows[0]?.count ?? 0;
  }

  return {
    countWithout,

    async waitForAll(process, id, timeoutMs) {
      const found = await waitForNotification(
        listener,
        channels.presence,
        () => true,
        async () => ((await countWithout(process, id)) === 0 ? true : undefined),
        timeoutMs,
      );
      return found === true;
    },

    async deleteDead() {
      await database('presences')
        .where('seen_at', '<', database.raw(`clock_timestamp() - interval '10 minutes'`))
        .delete();
    },
  };
}
