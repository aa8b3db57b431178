import { beginOperation } from '../core/broker/begin-operation.ts';
import type { Logger } from '../lib/logger.ts';
import type { Store } from '../core/ports/store.ts';
import { forEachInstance } from './each-instance.ts';

/** Begins to destroy the hosts of expired instances. An instance with an operation in progress waits for its end. */
export async function expireInstances(deps: { store: Store; logger: Logger }): Promise<void> {
  const { store, logger } = deps;
  const ids = await store.records.instancesDueToExpire();
  await forEachInstance(
    ids,
    { logger, failed: 'The destruction of an expired host could not begin; retrying at the next check' },
    async (id) => {
      const begun = await store.transaction(async (records) => {
        const instance = await records.instanceById(id, 'lock');
        if (instance?.state !== 'ready' || (await records.unfinishedOperation(id)) !== undefined)
          return false;
        await beginOperation(records, 'expire', id);
        return true;
      });
      if (begun) logger.info({ instance: id }, 'An instance has expired; its host will be destroyed');
    },
  );
}
