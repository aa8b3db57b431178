import type { AuditTrail } from '../core/ports/audit.ts';
import type { HighestMark, HistoryRecords } from '../core/ports/database-history.ts';
import type { Logger } from '../lib/logger.ts';
import { replayRevocations } from './replay.ts';

/** The worker's watch over the history of the database. */
export interface HistoryWatch {
  /**
   * Advances the mark. If the database has gone back in time or is another one (a promoted replica, a restored backup),
   * revokes again what it has forgotten, compares its hosts with those that exist, and confirms it; until then no
   * process uses it. Also replays the journals after each restart of the server.
   * @throws Error if the database or the hypervisor fails; nothing is confirmed then, and the next run tries again.
   */
  runOnce(): Promise<void>;
}

/**
 * @param deps.records over connections that are not checked themselves.
 * @param deps.folders of all revocation journals in the state directory.
 * @param deps.compareHosts compares rows with the hosts that exist, so that nothing is handed out that is somebody's;
 *   returns the number that differ.
 */
export function createHistoryWatch(deps: {
  readonly records: HistoryRecords;
  readonly highest: HighestMark;
  readonly folders: readonly string[];
  readonly compareHosts: () => Promise<number>;
  readonly audit: Pick<AuditTrail, 'record'>;
  readonly logger: Logger;
}): HistoryWatch {
  const { records, highest, compareHosts, audit, logger } = deps;
  let replayedFor: string | undefined;

  async function confirm(seen: number): Promise<void> {
    logger.warn(
      { seen },
      'The database has gone back in time, or was promoted or restored; it is compared with the node before it is used',
    );
    const revoked = await replayRevocations(deps);
    const differing = await compareHosts();
    const mark = await records.confirm(seen);
    if (mark === undefined) return;
    await highest.write(mark);
    logger.warn(
      { revoked, differing },
      `The database has gone back in time, or was promoted or restored: ${revoked} revocations replayed, ${differing} hosts differ; it is in use again. See "berth reconcile --dry-run"`,
    );
    await audit.record({
      actor: 'berth',
      action: 'database.confirm',
      outcome: 'succeeded',
      detail: { revoked, differing },
    });
  }

  return {
    async runOnce() {
      const seen = await highest.read();
      const advanced = await records.advance(seen);
      if (advanced === undefined) {
        await confirm(seen);
        return;
      }
      await highest.write(advanced.mark);
      if (advanced.serverStart === replayedFor) return;
      await replayRevocations(deps);
      replayedFor = advanced.serverStart;
    },
  };
}
