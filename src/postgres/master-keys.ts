import type { Knex } from 'knex';
import type { MasterKeyState } from '../core/ports/master-keys.ts';
import { channels } from './channels.ts';
import { notify } from './notify.ts';

/** Every master key that anything was ever sealed with, the newest first. */
export async function masterKeys(database: Knex): Promise<readonly MasterKeyState[]> {
  return database<MasterKeyState>('master_keys').orderBy('since', 'desc').select('id', 'state', 'since');
}

/** Records the first master key; another one that came first stays. */
export async function recordFirstMasterKey(database: Knex, id: string): Promise<void> {
  await database.raw(
    `INSERT INTO master_keys (id, state) SELECT ?, 'current' WHERE NOT EXISTS (SELECT FROM master_keys)
     ON CONFLICT DO NOTHING`,
    [id],
  );
}

/** From now on secrets are sealed with this key; the former one is needed until all is wrapped anew. */
export async function promoteMasterKey(database: Knex, id: string): Promise<void> {
  await database.transaction(async (transaction) => {
    await transaction('master_keys')
      .where({ state: 'current' })
      .update({ state: 'retiring', since: transaction.raw('clock_timestamp()') });
    await transaction('master_keys').insert({ id, state: 'current' });
    await notify(transaction, channels.keys, id);
  });
}

/** Nothing is sealed with these any more. */
export async function retireMasterKeys(database: Knex, ids: readonly string[]): Promise<void> {
  await database('master_keys')
    .whereIn('id', [...ids])
    .where({ state: 'retiring' })
    .update({ state: 'retired', since: database.raw('clock_timestamp()') });
}
