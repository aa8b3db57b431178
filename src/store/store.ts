import type { Knex } from 'knex';
import type { Records, Store } from '../core/store.ts';
import { createBindingRecords } from './bindings.ts';
import type { PortBlocks } from './database.ts';
import { createHostRecords } from './hosts.ts';
import { createInstanceRecords } from './instances.ts';
import { createOperationRecords } from './operations.ts';
import { createUsageRecords } from './usage.ts';
import { createPoolRecords } from './pool.ts';
import { createPowerRecords } from './power.ts';

/** The store over Postgres: one repository a table, all of them on one connection within a transaction. */
export function createStore(database: Knex, portBlocks: PortBlocks): Store {
  const recordsOn = (connection: Knex): Records => ({
    ...createInstanceRecords(connection),
    ...createHostRecords(connection, portBlocks),
    ...createPoolRecords(connection, portBlocks),
    ...createPowerRecords(connection),
    ...createBindingRecords(connection),
    ...createOperationRecords(connection),
    ...createUsageRecords(connection),
  });
  return {
    records: recordsOn(database),
    transaction: (work) => database.transaction((transaction) => work(recordsOn(transaction))),
  };
}
