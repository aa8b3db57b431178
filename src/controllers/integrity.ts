import type { Drift } from '../core/hypervisor/integrity.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { CheckableHost, CheckRecords, IntegrityPolicy } from '../core/ports/host-checks.ts';
import type { Logger } from '../lib/logger.ts';
import type { Records } from '../core/ports/store.ts';
import { errorMessage } from '../lib/error-message.ts';

interface Parts {
  readonly checks: CheckRecords;
  readonly hypervisor: Hypervisor;
  readonly store: { readonly records: Pick<Records, 'withdrawPooledHost'> };
  readonly policy: IntegrityPolicy;
  readonly logger: Logger;
}

/**
 * Checks hosts until it is stopped: all of them now and then, and those that somebody asks for at once. Ends
 * quarantines that an operator wants ended.
 */
export interface Checks {
  /** Somebody may have asked. */
  wake(): void;
  /** Returns when no check runs any more. */
  stop(): Promise<void>;
}

export function startChecks(parts: Parts & { readonly everyMs: number }): Checks {
  const { everyMs, logger } = parts;
  let stopped = false;
  let running = Promise.resolve();
  let nextRound = performance.now() + everyMs;
  let timer: NodeJS.Timeout | undefined;

  const round = async () => {
    if (stopped) return;
    const all = performance.now() >= nextRound;
    if (all) nextRound = performance.now() + everyMs;
    for (const { hostId, drift } of await parts.checks.unfinishedQuarantines()) {
      await cutOff(parts, hostId, drift);
    }
    for (const hostId of await parts.checks.released()) await releaseHost(parts, hostId);
    for (const host of await parts.checks.checkable()) {
      if (stopped as boolean) return;
      if (all || host.requested) await checkHost(parts, host);
    }
  };
  const wake = () => {
    clearTimeout(timer);
    running = running
      .then(round)
      .catch((error: unknown) => {
        logger.warn({ err: error }, 'Hosts could not be checked; it is tried again');
      })
      .finally(() => {
        clearTimeout(timer);
        if (!stopped) timer = setTimeout(wake, Math.max(0, nextRound - performance.now()));
      });
  };
  // For what was asked of the worker before this one, or left half done by it.
  wake();
  return {
    wake,
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await running;
    },
  };
}

/** Nothing leads to it yet: reconciliation brings it back. What is still altered is found by the next check. */
async function releaseHost({ checks, hypervisor, logger }: Parts, hostId: string): Promise<void> {
  try {
    await hypervisor.release(hostId);
    await checks.recordRelease(hostId);
  } catch (error) {
    logger.warn({ host: hostId, err: error }, 'A quarantine could not be ended; it is tried again');
    return;
  }
  logger.warn({ event: 'host.released', host: hostId }, 'An operator has ended the quarantine of a host');
}

async function checkHost(parts: Parts, host: CheckableHost): Promise<void> {
  const { hostId, pooled, drift: before } = host;
  const { checks, hypervisor, store, policy, logger } = parts;
  let found;
  try {
    found = await hypervisor.verify(hostId);
  } catch (error) {
    // Its machine has gone, say, which reconciliation puts right. Whatever it is, operators are told.
    logger.warn({ event: 'host.check_failed', host: hostId, err: error }, 'A host could not be checked');
    await checks.recordFailure(hostId, errorMessage(error));
    return;
  }
  if (found.length > 0 && JSON.stringify(found) !== JSON.stringify(before)) {
    logger.error({ event: 'host.altered', host: hostId, drift: found, policy }, 'A host has been altered');
  }
  if (found.length > 0 && pooled) {
    await checks.recordCheck(hostId, found);
    // Nobody's, and nobody gets it: the pool's keeper destroys what is withdrawn. One that was claimed just now is
    // its tenant's, and the next check's.
    await store.records.withdrawPooledHost(hostId);
  } else if (found.length > 0 && policy === 'quarantine') {
    // Recorded first, so that gateways cut it off even where the rest fails; the next round tries the rest again.
    await checks.recordQuarantine(hostId, found);
    await cutOff(parts, hostId, found);
  } else {
    await checks.recordCheck(hostId, found);
  }
}

async function cutOff(
  { checks, hypervisor, logger }: Parts,
  hostId: string,
  drift: readonly Drift[],
): Promise<void> {
  try {
    await hypervisor.quarantine(hostId);
  } catch (error) {
    logger.error(
      { host: hostId, err: error },
      'A host in quarantine could not be cut off; it is tried again',
    );
    return;
  }
  logger.error({ event: 'host.quarantined', host: hostId }, 'An altered host was cut off');
  await checks.recordCheck(hostId, drift);
}
