import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { channels } from './channels.ts';
import { notify } from './notify.ts';

/** A process that has said nothing for so long is taken for dead; in seconds. */
const silenceSeconds = 15;

/** Tells the other processes what this one holds, such as the ids of master keys. */
export interface Presence {
  /** To be repeated every few seconds, and whenever it changes. */
  announce(holds: readonly string[]): Promise<void>;
  leave(): Promise<void>;
}

export function createPresence(database: Knex, role: 'api' | 'gateway'): Presence {
  const id = randomUUID();
  let last: string | undefined;
  return {
    async announce(holds) {
      await database('presences')
        .insert({ id, role, holds: [...holds], seen_at: database.raw('clock_timestamp()') })
        .onConflict('id')
        .merge();
      const told = [...holds].sort().join(' ');
      if (told !== last) await notify(database, channels.keys, id);
      last = told;
    },
    async leave() {
      await database('presences').where({ id }).delete();
    },
  };
}

/** How many processes of a role are alive and do not hold this. */
export async function countLacking(database: Knex, role: 'api' | 'gateway', what: string): Promise<number> {
  const { rows } = await database.raw<{ rows: { count: number }[] }>(
    `SELECT count(*)::integer AS count FROM presences
     WHERE role = ? AND seen_at > clock_timestamp() - interval '${silenceSeconds} seconds' AND NOT (? = ANY (holds))`,
    [role, what],
  );
  return rows[0]?.count ?? 0;
}

/** Forgets processes that died long ago. */
export async function forgetDeadPresences(database: Knex): Promise<void> {
  await database('presences')
    .where('seen_at', '<', database.raw(`clock_timestamp() - interval '10 minutes'`))
    .delete();
}
