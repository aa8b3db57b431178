import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Halt } from '../core/hypervisor/run-state.ts';
import type { Host } from '../core/model/host.ts';
import type { Records } from '../core/ports/store.ts';
import type { Logger } from '../lib/logger.ts';
import type { DiskGuard } from './disk-guard.ts';
import { createHostTasks } from './host-tasks.ts';
import type { PowerSwitch } from './power-switch.ts';

/** Finds running hosts whose VM is stopped, records them, and continues or ends the VM once that can help. */
export interface HaltedHostsController {
  /** Looks at all hosts once. */
  runOnce(): Promise<void>;
}

/** Pause before the next attempt for the same host: doubled each time, until it has run for as long. Milliseconds. */
const firstPauseMs = 5_000;
const longestPauseMs = 5 * 60_000;

/** A VM in another state can't continue. */
const canContinue = (halt: Halt) => halt === 'io-error' || halt === 'paused';

/**
 * A VM with a failed write (`io-error`) or that something has stopped (`paused`) continues if the disk has room. One that can't
 * continue is ended: reconciliation restarts its host.
 */
export function createHaltedHostsController(deps: {
  readonly records: Records;
  readonly hypervisor: Hypervisor;
  readonly logger: Logger;
  readonly power: PowerSwitch;
  readonly guard: DiskGuard;
}): HaltedHostsController {
  const { records, hypervisor, logger, power, guard } = deps;
  /** `notBefore` is a `performance.now()`. */
  const attempts = new Map<string, { pauseMs: number; notBefore: number }>();
  const tasks = createHostTasks({
    failed: 'A halted host could not be continued; retrying after a pause that grows to 5 min',
    logger,
  });

  const shouldRun = (host: Host | undefined): host is Host =>
    host?.state === 'running' && host.power === 'running' && !host.quarantined;

  async function record(host: Host, halt: Halt | undefined): Promise<void> {
    // The row still tells it after a restart of the worker.
    const isForSpace = guard.isHeld(host.id) || host.halted === 'disk-full';
    const reason = halt === 'paused' && isForSpace ? 'disk-full' : halt;
    if (reason === host.halted) return;
    await records.setHostHalted(host.id, reason);
    // The guard has logged its own.
    if (reason === undefined || reason === 'disk-full') return;
    const next = canContinue(reason) ? 'it continues once the disk has room' : 'its host restarts';
    logger.error(
      { event: 'host.halted', host: host.id, halt },
      `The VM of a running host is stopped; ${next}`,
    );
  }

  /** Acts under the host's lock, after reading again: an operation or an idle check may have come first. */
  function relieve(hostId: string, halt: Halt): Promise<void> {
    return hypervisor.withHostLock(hostId, async () => {
      const host = await records.livingHost(hostId);
      if (!shouldRun(host) || (await hypervisor.haltOf(hostId)) !== halt) return;
      if ((await records.unfinishedOperation(host.instanceId)) !== undefined) return;
      if (!canContinue(halt)) return hypervisor.stop(hostId);
      if (!(await power.wake(host))) return;
      await records.setHostHalted(hostId, undefined);
      logger.warn({ event: 'host.continued', host: hostId, halt }, 'A halted host continues');
    });
  }

  /** Whether the host may be acted on now; the next time comes after a longer pause. */
  function isDue(hostId: string): boolean {
    const now = performance.now();
    const { pauseMs, notBefore } = attempts.get(hostId) ?? { pauseMs: firstPauseMs, notBefore: now };
    if (now < notBefore) return false;
    attempts.set(hostId, { pauseMs: Math.min(2 * pauseMs, longestPauseMs), notBefore: now + pauseMs });
    return true;
  }

  function settle(hostId: string): void {
    guard.forget(hostId);
    const past = attempts.get(hostId);
    if (past !== undefined && performance.now() > past.notBefore + past.pauseMs) attempts.delete(hostId);
  }

  return {
    async runOnce() {
      const hosts = new Map((await records.livingHosts()).filter(shouldRun).map((host) => [host.id, host]));
      for (const id of attempts.keys()) if (!hosts.has(id)) attempts.delete(id);
      /** One host continues at a time: the next follows if there is still room. */
      let room = await guard.hasRoom();
      await tasks.run([...hosts.keys()], async (hostId) => {
        const host = hosts.get(hostId);
        if (host === undefined) return;
        const halt = await hypervisor.haltOf(hostId);
        await record(host, halt);
        if (halt === undefined) {
          settle(hostId);
          return;
        }
        if (canContinue(halt) && !room) return;
        if (!isDue(hostId)) return;
        if (canContinue(halt)) room = false;
        await relieve(hostId, halt);
      });
    },
  };
}
