import { beginOperation } from '../core/broker/begin-operation.ts';
import type { Logger } from '../lib/logger.ts';
import type { Store } from '../core/ports/store.ts';
import { forEachInstance } from './each-instance.ts';

/** Time between the end of a failed delete and the next attempt, in milliseconds. */
const retryAfterMs = 5 * 60_000;

/** Retries deletes that have failed and left a host behind, whether or not the platform asks again. */
export async function retryFailedDeletes(deps: { store: Store; logger: Logger }): Promise<void> {
  const { store, logger } = deps;
  const ids = await store.records.instancesWithFailedDelete(retryAfterMs);
  await forEachInstance(
    ids,
    { logger, failed: 'The retry of a failed delete could not begin; trying again at the next check' },
    async (id) => {
      const begun = await store.transaction(async (records) => {
        const instance = await records.instanceById(id, 'lock');
        if (instance?.state !== 'failed' || (await records.unfinishedOperation(id)) !== undefined)
          return false;
        await records.setInstanceState(id, 'deleting');
        await beginOperation(records, 'deprovision', id);
        return true;
      });
      if (begun) logger.warn({ instance: id }, 'A failed delete has left a host; retrying the delete');
    },
  );
}
