import { operationRetentionMs } from '../core/broker/operation-retention.ts';
import type { Store } from '../core/ports/store.ts';

/** Rows that one statement deletes: a worker that has been away for long does not hold the table for long. */
const batch = 1_000;

/** Forgets the operations of instances that were deleted long ago: of those only the id is left (docs/osb.md 15). */
export async function forgetOldOperations({ store }: { store: Store }): Promise<void> {
  while ((await store.records.deleteOldOperations(operationRetentionMs, batch)) === batch);
}
