import { setTimeout as delay } from 'node:timers/promises';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Host } from '../core/model/host.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Records } from '../core/ports/store.ts';

/** Puts a host to sleep, or wakes it. Whoever calls holds the host, and has read its row since. */
export interface PowerSwitch {
  /** False where an operation is in progress: it brings the host up, or takes it away. */
  wake(host: Host): Promise<boolean>;
  /** @param unless a reason to wake it again at once, looked for when it stands still. */
  putToSleep(host: Host, power: 'paused' | 'suspended', unless: () => Promise<boolean>): Promise<void>;
}

/** A guest that goes on answers within tenths of a second. Milliseconds. */
const clockTimeoutMs = 10_000;
const clockPollMs = 20;

/**
 * That a host goes to sleep is on record first, so that gateways ask for it to be woken; then it does; then whoever
 * came in between is looked for. That it is awake is on record last. A worker that is killed anywhere in between
 * leaves a host that is asleep on record: the next one finishes it, or wakes it when it is asked to.
 */
export function createPowerSwitch(parts: {
  records: Records;
  hypervisor: Hypervisor;
  logger: Logger;
}): PowerSwitch {
  const { records, hypervisor, logger } = parts;

  async function wake(host: Host): Promise<boolean> {
    if ((await records.unfinishedOperation(host.instanceId)) !== undefined) return false;
    const spec = toHostSpec(host);
    const begun = performance.now();
    if (host.power === 'suspended') await hypervisor.prepare(spec);
    await hypervisor.resume(spec);
    // The clock has stood still.
    while (!(await hypervisor.identify(spec))) {
      if (performance.now() - begun > clockTimeoutMs)
        throw new Error('the guest does not answer after its wake');
      await delay(clockPollMs);
    }
    if (host.power === 'suspended') await hypervisor.connect(spec);
    if (host.power === 'running') {
      // Who asks for a host that is awake has not heard of it.
      await records.notifyGateways(host.id);
      return true;
    }
    logger.info({ host: host.id, ms: Math.round(performance.now() - begun) }, 'A host was woken');
    return records.setHostPower(host.id, host.power, 'running');
  }

  return {
    wake,
    async putToSleep(host, power, unless) {
      if (!(await records.setHostPower(host.id, host.power, power))) return;
      const asleep = { ...host, power };
      try {
        // Paused in either case: nobody can come while the memory is written.
        await hypervisor.pause(host.id).catch((error: unknown) => {
          if (host.power === 'running') throw error;
        });
        if (await unless()) {
          await wake(asleep);
          return;
        }
        if (power === 'suspended') await hypervisor.suspend(host.id);
      } catch (error) {
        await wake(asleep).catch(() => false);
        throw error;
      }
      logger.info({ host: host.id, power }, 'A host was put to sleep');
    },
  };
}
