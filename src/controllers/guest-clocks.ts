import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Host } from '../core/model/host.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Records } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';
import { createHostTasks } from './host-tasks.ts';

/** Corrects the clocks of running guests, which drift and have no time server that they are sure to reach. */
export interface GuestClocks {
  runOnce(): Promise<void>;
}

/**
 * Time between two rounds, in milliseconds. A clock drifts by less than 15 ms meanwhile (500 ppm, the limit of NTP); one
 * that has lost time, because its VM was stopped, is right again after the next round.
 */
export const guestClocksEveryMs = 30_000;

/** A clock that differs by little is slewed by the guest, a larger error is corrected at once (guest/clock.ts). */
export function createGuestClocks(deps: {
  readonly records: Pick<Records, 'livingHosts' | 'livingHost' | 'unfinishedOperation'>;
  readonly hypervisor: Pick<Hypervisor, 'correctClock' | 'withHostLock'>;
  readonly logger: Logger;
}): GuestClocks {
  const { records, hypervisor, logger } = deps;
  const tasks = createHostTasks({
    failed: "A guest's clock could not be corrected; retrying in 30 s",
    logger,
  });
  const runs = (host: Host | undefined): host is Host =>
    host?.state === 'running' && host.power === 'running' && host.engine !== undefined && !host.quarantined;

  return {
    async runOnce() {
      const running = (await records.livingHosts()).filter(runs).map(({ id }) => id);
      await tasks.run(running, (id) =>
        hypervisor.withHostLock(id, async () => {
          // Read again under the lock: it may have been paused, or belong to an operation now.
          const host = await records.livingHost(id);
          if (!runs(host) || (await records.unfinishedOperation(host.instanceId)) !== undefined) return;
          await hypervisor.correctClock(toHostSpec(host));
        }),
      );
    },
  };
}
