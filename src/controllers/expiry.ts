import { beginOperation } from '../core/broker/begin-operation.ts';
import type { Logger } from '../lib/logger.ts';
import type { Store } from '../core/ports/store.ts';

/** Begins to destroy the hosts of instances whose term is over. What is under way on one ends first. */
export async function expireDue(parts: { store: Store; logger: Logger }): Promise<void> {
  const { store, logger } = parts;
  for (const id of await store.records.instancesDueToExpire()) {
    const begun = await store.transaction(async (records) => {
      const instance = await records.instanceById(id, 'lock');
      if (instance?.state !== 'ready' || (await records.unfinishedOperation(id)) !== undefined) return false;
      await beginOperation(records, 'expire', id);
      return true;
    });
    if (begun) logger.info({ instance: id }, 'The term of an instance is over; its host is destroyed');
  }
}
