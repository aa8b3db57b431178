import { beginOperation } from '../core/broker/begin-operation.ts';
import type { Host } from '../core/model/host.ts';
import type { Instance } from '../core/model/instance.ts';
import type { Store } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';

/** Deadline of a restart, in milliseconds. A later reconciliation begins another one. */
const restartDeadlineMs = 20 * 60 * 1000;

export const vmHasEnded = 'its VM has ended';
export const unreachable = 'it has no address';
export const memoryLost = 'its memory could not be loaded';

/**
 * Begins the restart of a host that should run and does not, unless an operation is in progress. A host that keeps ending
 * is restarted at growing intervals.
 */
export async function restartHost(
  { store, logger }: { readonly store: Store; readonly logger: Logger },
  host: Host,
  reason: typeof vmHasEnded | typeof unreachable | typeof memoryLost,
): Promise<void> {
  const outcome = await store.transaction(async (records) => {
    // Locked until the commit: of two operations that begin at the same time, the later one finds the earlier.
    const instance = await records.instanceById(host.instanceId, 'lock');
    if (instance === undefined || !isWanted(instance)) return undefined;
    if ((await records.unfinishedOperation(host.instanceId)) !== undefined) return undefined;
    const current = await records.hostOfInstance(host.instanceId);
    if (current?.id !== host.id || current.state !== 'running') return undefined;
    // It may have become reachable since it was read.
    if (reason === unreachable && current.engine !== undefined) return undefined;
    const wasReachable = current.engine !== undefined;
    const next = await records.recordHostEnd(host.id, wasReachable);
    if (wasReachable) await records.setHostUnreachable(host.id);
    if (next.due) {
      await records.recordRestart(host.id);
      await beginOperation(records, 'restart', host.instanceId, { withinMs: restartDeadlineMs });
    }
    return { ...next, isNew: wasReachable };
  });
  if (outcome === undefined) return;
  const details = { host: host.id, why: reason, restarts: outcome.restarts };
  if (outcome.due) logger.warn(details, 'Restarting a host');
  else if (outcome.isNew) {
    logger.warn(
      { ...details, retryAt: outcome.retryAt },
      'A host keeps ending; it is restarted after a pause',
    );
  }
}

/**
 * Whether the instance should have a running host. While its host is being destroyed it should not, even if that has
 * failed half-way, because the disk may be partly wiped.
 */
function isWanted({ state, expiresAt }: Instance): boolean {
  return state === 'ready' && (expiresAt === undefined || expiresAt.getTime() > Date.now());
}
