import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { HostSeen, Hypervisor } from '../core/hypervisor.ts';
import type { Logger } from '../core/logger.ts';
import type { Host, HostPower, PowerRequest } from '../core/model.ts';
import { toHostSpec } from '../core/operations/host-steps.ts';
import type { Store } from '../core/store.ts';

/** Puts hosts to sleep that nobody uses, and wakes those that somebody wants. */
export interface SleepKeeper {
  /** Does what gateways and operators have asked for. */
  serve(): Promise<void>;
  /** One look at all hosts: who is idle, who was left half asleep. */
  look(): Promise<void>;
}

/** One worker at a time puts hosts to sleep; each wakes them. Milliseconds. */
const leaseMs = 15_000;
/** A guest that goes on answers within tenths of a second. Milliseconds. */
const clockTimeoutMs = 10_000;
const clockPollMs = 20;

/**
 * That a host goes to sleep is on record first, so that gateways ask for it to be woken; then it does; then whoever
 * came in between is looked for. That it is awake is on record last. A worker that is killed anywhere in between
 * leaves a host that is asleep on record: the next one finishes it, or wakes it when it is asked to.
 * @param parts.pauseAfterMs how long a host must have been idle: no connection, no packet, no running container.
 * @param parts.suspendAfterMs how long it must have been paused then, where its policy is to suspend.
 */
export function createSleepKeeper(parts: {
  store: Store;
  hypervisor: Hypervisor;
  logger: Logger;
  pauseAfterMs: number;
  suspendAfterMs: number;
}): SleepKeeper {
  const { store, hypervisor, logger, pauseAfterMs, suspendAfterMs } = parts;
  const { records } = store;
  const owner = randomUUID();
  /** Since when nothing has been sent to a host, as far as this process knows. */
  const quiet = new Map<string, { packets: number; since: number }>();

  const trafficOf = async (host: Host) =>
    (await hypervisor.traffic([toHostSpec(host)])).get(host.id) ?? { connections: 0, packets: 0 };

  /** False where an operation is in progress: it brings the host up, or takes it away. */
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
    quiet.delete(host.id);
    if (host.power === 'on') {
      // Who asks for a host that is awake has not heard of it.
      await records.tellGateways(host.id);
      return true;
    }
    logger.info({ host: host.id, ms: Math.round(performance.now() - begun) }, 'A host was woken');
    return records.setHostPower(host.id, host.power, 'on');
  }

  /** @param unless a reason to wake it again at once, looked for when it stands still. */
  async function putToSleep(
    host: Host,
    power: 'paused' | 'suspended',
    unless: () => Promise<boolean>,
  ): Promise<void> {
    if (!(await records.setHostPower(host.id, host.power, power))) return;
    quiet.delete(host.id);
    const asleep = { ...host, power };
    try {
      // Paused in either case: nobody can come while the memory is written.
      await hypervisor.pause(host.id).catch((error: unknown) => {
        if (host.power === 'on') throw error;
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
  }

  const isUsed = async (host: Host) => (await trafficOf(host)).connections > 0;
  const never = () => Promise.resolve(false);

  async function isIdle(host: Host): Promise<boolean> {
    const { connections, packets } = await trafficOf(host);
    const known = quiet.get(host.id);
    const now = performance.now();
    if (known === undefined || connections > 0 || packets !== known.packets) {
      quiet.set(host.id, { packets, since: now });
      return false;
    }
    if (now - known.since < pauseAfterMs) return false;
    const running = await hypervisor.runningContainers(toHostSpec(host));
    // To ask it was to use it.
    quiet.set(host.id, { packets: (await trafficOf(host)).packets, since: now });
    return running === 0;
  }

  async function consider(host: Host, seen: HostSeen['state'] | undefined): Promise<void> {
    const asleepForMs = Date.now() - host.powerSince.getTime();
    switch (host.power) {
      case 'on':
        if (host.idle !== 'run' && (await isIdle(host))) await putToSleep(host, 'paused', () => isUsed(host));
        return;
      case 'paused':
        // Left so by a worker that was killed in the middle.
        if (seen === 'running') await hypervisor.pause(host.id);
        if (seen === 'running' && (await isUsed(host))) {
          await wake(host);
        } else if (host.idle === 'suspend' && asleepForMs >= suspendAfterMs) {
          await putToSleep(host, 'suspended', () => isUsed(host));
        }
        return;
      case 'suspended':
        if (seen === 'running' || seen === 'paused') await hypervisor.suspend(host.id);
    }
  }

  /** False where it must be looked at again. */
  async function meet(host: Host, power: HostPower): Promise<boolean> {
    if (power === 'on') return wake(host);
    if (host.power !== power && host.power !== 'suspended') await putToSleep(host, power, never);
    return true;
  }

  async function serveOne(request: PowerRequest): Promise<void> {
    const host = await records.livingHost(request.hostId);
    if (host?.state === 'running' && !host.quarantined && !(await meet(host, request.power))) return;
    await records.forgetPowerRequest(request);
  }

  const attempt = async (hostId: string, act: () => Promise<void>) => {
    try {
      await hypervisor.holdHost(hostId, act);
    } catch (error) {
      logger.error(
        { host: hostId, err: error },
        'A host could not be woken or put to sleep; it is tried again',
      );
    }
  };

  return {
    async serve() {
      const requests = await records.powerRequests();
      await Promise.all(requests.map((request) => attempt(request.hostId, () => serveOne(request))));
    },

    async look() {
      if (!(await records.keep('sleep', owner, leaseMs))) return;
      const states = new Map((await hypervisor.list()).map(({ hostId, state }) => [hostId, state]));
      for (const { id } of await records.livingHosts()) {
        await attempt(id, async () => {
          // As it is now: it may have been woken since.
          const host = await records.livingHost(id);
          if (host?.state === 'running' && host.engine !== undefined && !host.quarantined)
            await consider(host, states.get(id));
        });
      }
    },
  };
}
