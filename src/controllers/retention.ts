import { operationRetentionMs } from '../core/broker/operation-retention.ts';
import type { Store } from '../core/ports/store.ts';

/** Rows per statement: short transactions, also after a long downtime. */
const batchSize = 1_000;

/**
 * Deletes the operations of instances that were deleted long ago, of which only their ids remain (docs/osb.md 15), and
 * former restarts of hosts that keep ending.
 */
export async function deleteOldOperations({ store }: { store: Store }): Promise<void> {
  while ((await store.records.deleteOldOperations(operationRetentionMs, batchSize)) === batchSize);
  while ((await store.records.deleteOldRestarts(batchSize)) === batchSize);
}
