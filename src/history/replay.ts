import type { HistoryRecords } from '../core/ports/database-history.ts';
import type { Logger } from '../lib/logger.ts';
import { readRevocations } from './revocation-journal.ts';

/** Ids in one statement. */
const batchSize = 1_000;

/**
 * Revokes again what the journals say was revoked and the database has as live.
 * @param deps.folders of the journals.
 * @returns the number of such bindings.
 */
export async function replayRevocations(deps: {
  readonly records: Pick<HistoryRecords, 'revokeAgain'>;
  readonly folders: readonly string[];
  readonly logger: Logger;
}): Promise<number> {
  const { records, folders, logger } = deps;
  let count = 0;
  for (const folder of folders) {
    const onDamaged = (file: string, why: string) => {
      logger.error(
        { file, why },
        'A file of the revocation journal is damaged; if the database was restored, revocations in it may be missing: unbind again what must not connect, then remove the file',
      );
    };
    for await (const revocations of readRevocations(folder, onDamaged)) {
      const ids = revocations.map(({ bindingId }) => bindingId);
      for (let from = 0; from < ids.length; from += batchSize) {
        const revoked = await records.revokeAgain(ids.slice(from, from + batchSize));
        count += revoked.length;
        for (const binding of revoked) {
          logger.warn({ binding }, 'The database had lost the revocation of a binding; it was revoked again');
        }
      }
    }
  }
  return count;
}

/**
 * Replays this process's own journal at its start and after each restart of the server, which may have lost transactions
 * without another sign of it. To be run periodically: a failed run is repeated by the next.
 */
export function createRestartReplay(deps: {
  readonly records: Pick<HistoryRecords, 'revokeAgain' | 'serverStart'>;
  readonly folders: readonly string[];
  readonly logger: Logger;
}): { runOnce(): Promise<void> } {
  let replayedFor: string | undefined;
  return {
    async runOnce() {
      const start = await deps.records.serverStart();
      if (start === replayedFor) return;
      await replayRevocations(deps);
      replayedFor = start;
    },
  };
}
