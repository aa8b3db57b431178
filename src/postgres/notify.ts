import type { Knex } from 'knex';
import type { Channel } from './channels.ts';

/** Notifies the listeners of a channel; within a transaction, when it commits (PostgreSQL manual, NOTIFY). */
export async function notify(connection: Knex, channel: Channel, id: string): Promise<void> {
  await connection.raw('SELECT pg_notify(?, ?)', [channel, id]);
}
