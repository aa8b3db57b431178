import type { Knex } from 'knex';
import type { MasterKeyEvents, MasterKeyState, MasterKeyStore } from '../core/ports/master-keys.ts';
import { channels } from './channels.ts';
import { type Listener, onChange } from './listener.ts';
import { notify } from './notify.ts';

/** The record of master keys in Postgres. */
export function createMasterKeyStore(database: Knex): MasterKeyStore {
  return {
    list: async () =>
      database<MasterKeyState>('master_keys').orderBy('since', 'desc').select('id', 'state', 'since'),

    async recordFirst(id) {
      await database.raw(
        `INSERT INTO master_keys (id, state) SELECT ?, 'current' WHERE NOT EXISTS (SELECT FROM master_keys)
         ON CONFLICT DO NOTHING`,
        [id],
      );
    },

    async promote(id) {
      await database.transaction(async (transaction) => {
        await transaction('master_keys')
          .where({ state: 'current' })
          .update({ state: 'retiring', since: transaction.raw('clock_timestamp()') });
        await transaction('master_keys').insert({ id, state: 'current' });
        await notify(transaction, channels.masterKeys, id);
      });
    },

    async retire(ids) {
      await database('master_keys')
        .whereIn('id', [...ids])
        .where({ state: 'retiring' })
        .update({ state: 'retired', since: database.raw('clock_timestamp()') });
    },
  };
}

/** Notifications between the apis about master keys. */
export function createMasterKeyEvents(database: Knex, listener: Listener): MasterKeyEvents {
  return {
    onChange: (callback) => onChange(listener, channels.masterKeys, callback),
    requestReread: (id) => notify(database, channels.masterKeyFile, id),
    onRereadRequested: (callback) => listener.on(channels.masterKeyFile, callback),
  };
}
