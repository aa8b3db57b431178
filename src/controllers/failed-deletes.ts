import { beginOperation } from '../core/broker/begin-operation.ts';
import type { Logger } from '../lib/logger.ts';
import type { Store } from '../core/ports/store.ts';

/** Time between the end of a delete that failed and the next try, in milliseconds. */
const pauseMs = 5 * 60_000;

/**
 * Begins deletes anew that have failed and left a host: nothing of an instance stays behind, also where its platform
 * does not ask again (design: promise 2).
 */
export async function finishDeletes(parts: { store: Store; logger: Logger }): Promise<void> {
  const { store, logger } = parts;
  for (const id of await store.records.instancesWithFailedDelete(pauseMs)) {
    const begun = await store.transaction(async (records) => {
      const instance = await records.instanceById(id, 'lock');
      if (instance?.state !== 'failed' || (await records.unfinishedOperation(id)) !== undefined) return false;
      await records.setInstanceState(id, 'deleting');
      await beginOperation(records, 'deprovision', id);
      return true;
    });
    if (begun) logger.warn({ instance: id }, 'A delete had failed and left a host; it is tried again');
  }
}
