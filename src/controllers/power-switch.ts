import { setTimeout as delay } from 'node:timers/promises';
import { MemoryLostError } from '../core/hypervisor/memory-lost-error.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Host } from '../core/model/host.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Records } from '../core/ports/store.ts';

/** Pauses, suspends and wakes a host. The caller has the host's lock and has read its row under it. */
export interface PowerSwitch {
  /**
   * False if an operation is in progress or begins: that one starts the host, or destroys it. A suspended host whose memory
   * can't be loaded is restarted.
   */
  wake(host: Host): Promise<boolean>;
  /**
   * A host that can't be paused or suspended is woken again; a paused one stays paused.
   * @param isWanted asked once the host is paused; if true, it is woken again at once.
   */
  powerDown(host: Host, power: 'paused' | 'suspended', isWanted: () => Promise<boolean>): Promise<void>;
}

/** A resumed guest answers within tenths of a second. Milliseconds. */
const identifyTimeoutMs = 10_000;
const identifyPollMs = 20;

/**
 * Before a host is paused, its row says so: gateways then ask for a wake. Then it is paused, and then connections that
 * came in between are looked for. When a host is woken, its row changes last. A worker that is killed in between leaves
 * a host whose row says `paused` or `suspended`; the next worker completes that, or wakes the host on request.
 */
export function createPowerSwitch(deps: {
  records: Records;
  hypervisor: Hypervisor;
  /** Begins the restart of a host whose memory was lost. */
  restart: (host: Host) => Promise<void>;
  logger: Logger;
}): PowerSwitch {
  const { records, hypervisor, restart, logger } = deps;

  async function wake(host: Host): Promise<boolean> {
    if ((await records.unfinishedOperation(host.instanceId)) !== undefined) return false;
    const spec = toHostSpec(host);
    const begun = performance.now();
    if (host.power === 'suspended') await hypervisor.prepare(spec);
    try {
      await hypervisor.resume(spec);
    } catch (error) {
      if (!(error instanceof MemoryLostError)) throw error;
      await restart(host);
      return false;
    }
    // Also sets the guest's clock, which did not run.
    while (!(await hypervisor.identify(spec))) {
      if (performance.now() - begun > identifyTimeoutMs)
        throw new Error('the guest does not answer after being resumed');
      await delay(identifyPollMs);
    }
    if (host.power === 'suspended') await hypervisor.connect(spec);
    if (host.power === 'running') {
      // A gateway that asks for a running host has missed its notification.
      await records.notifyGateways(host.id);
      return true;
    }
    logger.info({ host: host.id, ms: Math.round(performance.now() - begun) }, 'A host was woken');
    return records.setHostPower(host.id, host.power, 'running');
  }

  return {
    wake,
    async powerDown(host, power, isWanted) {
      if (!(await records.setHostPower(host.id, host.power, power))) return;
      const current = { ...host, power };
      try {
        // Paused before a suspend as well: no connection can come while the memory is written.
        await hypervisor.pause(host.id).catch((error: unknown) => {
          if (host.power === 'running') throw error;
        });
        if (await isWanted()) {
          await wake(current);
          return;
        }
        if (power === 'suspended') await hypervisor.suspend(host.id);
      } catch (error) {
        // Each try would wake it otherwise, for example as long as the disk is full.
        const staysPaused =
          host.power === 'paused' &&
          (await records.setHostPower(host.id, power, 'paused').catch(() => false));
        if (!staysPaused) await wake(current).catch(() => false);
        throw error;
      }
      logger.info({ host: host.id, power }, `A host was ${power}`);
    },
  };
}
