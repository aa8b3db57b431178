import type { Drift } from '../core/hypervisor/integrity.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { CheckableHost, CheckRecords, IntegrityPolicy } from '../core/ports/host-checks.ts';
import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';
import type { Records } from '../core/ports/store.ts';
import type { Trigger } from './controller.ts';
import { createHostTasks } from './host-tasks.ts';

interface Deps {
  readonly checks: CheckRecords;
  readonly hypervisor: Hypervisor;
  readonly store: { readonly records: Pick<Records, 'withdrawPoolHost'> };
  readonly policy: IntegrityPolicy;
  readonly logger: Logger;
}

/** Checks hosts for drift, and begins and ends quarantines. */
export interface IntegrityController {
  /** Checks all hosts if a timer triggered it, otherwise only those whose check was requested. Calls may overlap. */
  runOnce(trigger: Trigger): Promise<void>;
}

/** @param deps.signal aborts between two hosts. */
export function createIntegrityController(
  deps: Deps & { readonly signal: AbortSignal },
): IntegrityController {
  const { checks, signal } = deps;
  const isAborted = () => signal.aborted;
  let last: Promise<void> = Promise.resolve();
  const { logger } = deps;
  const cutOffs = createHostTasks({
    failed: 'A quarantine could not be recorded; retrying at the next check',
    logger,
  });
  const releases = createHostTasks({
    failed: 'A release could not be recorded; retrying at the next check',
    logger,
  });
  const checksOfHosts = createHostTasks({
    failed: 'A check of a host could not be recorded; retrying at the next check',
    logger,
  });

  const checkHosts = async (all: boolean) => {
    if (isAborted()) return;
    const quarantined = new Map(
      (await checks.unfinishedQuarantines()).map(({ hostId, drift }) => [hostId, drift]),
    );
    await cutOffs.run([...quarantined.keys()], (hostId) =>
      cutOff(deps, hostId, quarantined.get(hostId) ?? []),
    );
    await releases.run(await checks.released(), (hostId) => releaseHost(deps, hostId));
    const due = new Map(
      (await checks.checkable())
        .filter(({ requested }) => all || requested)
        .map((host) => [host.hostId, host]),
    );
    await checksOfHosts.run([...due.keys()], async (hostId) => {
      const host = due.get(hostId);
      if (host !== undefined && !isAborted()) await checkHost(deps, host);
    });
  };
  return {
    runOnce(trigger) {
      // One after the other, so that a requested check and a periodic one don't check a host at the same time.
      const run = last.then(() => checkHosts(trigger === 'timer'));
      last = run.catch(() => undefined);
      return run;
    },
  };
}

/** Does not connect the host: reconciliation restarts it. The next check reports the drift that remains. */
async function releaseHost({ checks, hypervisor, logger }: Deps, hostId: string): Promise<void> {
  try {
    await hypervisor.release(hostId);
    await checks.recordRelease(hostId);
  } catch (error) {
    logger.warn({ host: hostId, err: error }, 'A host could not be released; retrying at the next check');
    return;
  }
  logger.warn({ event: 'host.released', host: hostId }, 'An operator has released a host from quarantine');
}

async function checkHost(deps: Deps, host: CheckableHost): Promise<void> {
  const { hostId, parked, drift: before } = host;
  const { checks, hypervisor, store, policy, logger } = deps;
  let found;
  try {
    found = await hypervisor.verify(hostId);
  } catch (error) {
    // If its VM has ended, reconciliation restarts it. Operators see the failure in any case.
    logger.warn({ event: 'host.check_failed', host: hostId, err: error }, 'A host could not be checked');
    await checks.recordFailure(hostId, errorMessage(error));
    return;
  }
  if (found.length > 0 && JSON.stringify(found) !== JSON.stringify(before)) {
    logger.error(
      { event: 'host.drift', host: hostId, drift: found, policy },
      'A host differs from its manifest',
    );
  }
  if (found.length > 0 && parked) {
    await checks.recordCheck(hostId, found);
    // No tenant gets it: the pool controller destroys withdrawn hosts. If it was claimed just now, this changes
    // nothing, and the next check applies the policy.
    await store.records.withdrawPoolHost(hostId);
  } else if (found.length > 0 && policy === 'quarantine') {
    // Recorded first, so that gateways cut it off even if the hypervisor fails; the next run retries that part.
    await checks.recordQuarantine(hostId, found);
    await cutOff(deps, hostId, found);
  } else {
    await checks.recordCheck(hostId, found);
  }
}

async function cutOff(
  { checks, hypervisor, logger }: Deps,
  hostId: string,
  drift: readonly Drift[],
): Promise<void> {
  try {
    await hypervisor.quarantine(hostId);
  } catch (error) {
    logger.error(
      { host: hostId, err: error },
      'A host in quarantine could not be disconnected; retrying at the next check',
    );
    return;
  }
  logger.error({ event: 'host.quarantined', host: hostId }, 'A host was quarantined');
  await checks.recordCheck(hostId, drift);
}
