import { setTimeout as delay } from 'node:timers/promises';
import type { Knex } from 'knex';
import type { Records, Store } from '../core/ports/store.ts';
import { createBindingRecords } from './records/bindings.ts';
import { createDisputedRecords } from './records/disputed.ts';
import type { SlotRules } from './database.ts';
import { createHostRecords } from './records/hosts.ts';
import { createInstanceRecords } from './records/instances.ts';
import { createOperationRecords } from './records/operations.ts';
import { createUsageRecords } from './records/usage.ts';
import { createPoolRecords } from './records/pool.ts';
import { createPowerRecords } from './records/power.ts';
import { createRestartRecords } from './records/restarts.ts';

/** The store over Postgres. Within a transaction all records use its one connection. */
export function createStore(database: Knex, slotRules: SlotRules): Store {
  const recordsOn = (connection: Knex): Records => ({
    ...createInstanceRecords(connection),
    ...createHostRecords(connection, slotRules),
    ...createDisputedRecords(connection),
    ...createPoolRecords(connection, slotRules),
    ...createPowerRecords(connection),
    ...createRestartRecords(connection),
    ...createBindingRecords(connection),
    ...createOperationRecords(connection),
    ...createUsageRecords(connection),
  });
  return {
    records: recordsOn(database),
    async transaction(work) {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await database.transaction((transaction) => work(recordsOn(transaction)));
        } catch (error) {
          if (attempt === maxAttempts || !wasAborted(error)) throw error;
          // At once, it could overtake the transaction that survived, and deadlock with it again.
          await delay(retryMilliseconds * (1 + Math.random()));
        }
      }
    },
  };
}

/** Attempts of a transaction that Postgres aborts in favour of another one. */
const maxAttempts = 3;

/** Wait before another attempt, in milliseconds; up to twice as long at random. */
const retryMilliseconds = 25;

/**
 * A deadlock or serialization failure (PostgreSQL manual, appendix A, class 40), or ports that another transaction has
 * taken in between (23P01, exclusion violation): a retry can succeed.
 */
function wasAborted(error: unknown): boolean {
  return ['40P01', '40001', '23P01'].includes((error as { code?: string }).code ?? '');
}
