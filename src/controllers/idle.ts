import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { AdmissionRules } from '../core/model/node-memory.ts';
import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { HostTraffic } from '../core/hypervisor/power.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Host } from '../core/model/host.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Store } from '../core/ports/store.ts';
import { createPowerSwitch } from './power-switch.ts';
import { createRequestServer } from './power-requests.ts';

/** Puts hosts to sleep that nobody uses, and wakes those that somebody wants. */
export interface IdleController {
  /** Does what gateways and operators have asked for. */
  fulfilRequests(): Promise<void>;
  /** One look at all hosts: who is idle, who was left half asleep. */
  runOnce(): Promise<void>;
}

/** One worker at a time puts hosts to sleep; each wakes them. Milliseconds. */
const leaseMs = 15_000;

/** A connection is over within milliseconds of its answer, where its guest ends it too. Milliseconds. */
const askingEndsMs = 1_000;
const askingPollMs = 20;

const noTraffic: HostTraffic = { connections: 0, packets: 0 };

/**
 * @param parts.pauseAfterMs how long a host must have been idle: no connection, no packet, no running container.
 * @param parts.suspendAfterMs how long it must have been paused then, where its policy is to suspend.
 */
export function createIdleController(parts: {
  store: Store;
  hypervisor: Hypervisor;
  logger: Logger;
  pauseAfterMs: number;
  suspendAfterMs: number;
  admission: AdmissionRules;
}): IdleController {
  const { store, hypervisor, logger, pauseAfterMs, suspendAfterMs } = parts;
  const { records } = store;
  const power = createPowerSwitch({ records, hypervisor, logger });
  const owner = randomUUID();
  /** Since when nothing has been sent to a host, as far as this process knows. */
  const quiet = new Map<string, { packets: number; since: number }>();

  const trafficOf = async (host: Host) =>
    (await hypervisor.traffic([toHostSpec(host)])).get(host.id) ?? noTraffic;
  const isUsed = async (host: Host) => (await trafficOf(host)).connections > 0;

  /** Whether nobody has had to do with a host for long enough, and since it was woken. */
  function isQuiet(host: Host, { connections, packets }: HostTraffic): boolean {
    const known = quiet.get(host.id);
    const now = performance.now();
    if (known === undefined || connections > 0 || packets !== known.packets) {
      quiet.set(host.id, { packets, since: now });
      return false;
    }
    return now - known.since >= pauseAfterMs && Date.now() - host.powerSince.getTime() >= pauseAfterMs;
  }

  /** What had been sent to a host when the question that was just asked it is over; undefined: others are there. */
  async function packetsAfterAsking(host: Host): Promise<number | undefined> {
    const begun = performance.now();
    for (;;) {
      const { connections, packets } = await trafficOf(host);
      if (connections === 0) return packets;
      if (performance.now() - begun > askingEndsMs) return undefined;
      await delay(askingPollMs);
    }
  }

  async function pauseIdle(host: Host): Promise<void> {
    if (!isQuiet(host, await trafficOf(host))) return;
    const running = await hypervisor.runningContainers(toHostSpec(host));
    const asked = await packetsAfterAsking(host);
    // To ask it was to use it.
    quiet.set(host.id, { packets: asked ?? -1, since: performance.now() });
    if (running > 0 || asked === undefined) return;
    await power.putToSleep(host, 'paused', async () => {
      const { connections, packets } = await trafficOf(host);
      // Who came and went since may have left a container that runs.
      return connections > 0 || packets !== asked;
    });
  }

  /** What is to be done with a host, by its row and by how it was seen; undefined: nothing, as nearly always. */
  function dueAct(
    host: Host,
    seen: ObservedHost['state'] | undefined,
    traffic: HostTraffic,
  ): ((host: Host) => Promise<void>) | undefined {
    switch (host.power) {
      case 'running':
        return host.idle !== 'run' && isQuiet(host, traffic) ? pauseIdle : undefined;
      case 'paused':
        // Left so by a worker that was killed in the middle.
        if (seen === 'running') return pauseAgain;
        return host.idle === 'suspend' && Date.now() - host.powerSince.getTime() >= suspendAfterMs
          ? (one) => power.putToSleep(one, 'suspended', () => isUsed(one))
          : undefined;
      case 'suspended':
        return seen === 'running' || seen === 'paused' ? ({ id }) => hypervisor.suspend(id) : undefined;
    }
  }

  async function pauseAgain(host: Host): Promise<void> {
    await hypervisor.pause(host.id);
    if (await isUsed(host)) await power.wake(host);
  }

  const isWell = (host: Host | undefined): host is Host =>
    host?.state === 'running' && host.engine !== undefined && !host.quarantined;

  return {
    fulfilRequests: createRequestServer({ records, hypervisor, logger, power, admission: parts.admission }),

    async runOnce() {
      if (!(await records.acquireLeadership('sleep', owner, leaseMs))) return;
      const states = new Map((await hypervisor.list()).map(({ hostId, state }) => [hostId, state]));
      const hosts = (await records.livingHosts()).filter(isWell);
      const known = new Set(hosts.map(({ id }) => id));
      for (const id of quiet.keys()) if (!known.has(id)) quiet.delete(id);
      const mayTire = hosts.filter(({ power: now, idle }) => now === 'running' && idle !== 'run');
      const traffic = await hypervisor.traffic(mayTire.map(toHostSpec));
      for (const one of hosts) {
        const act = dueAct(one, states.get(one.id), traffic.get(one.id) ?? noTraffic);
        if (act === undefined) continue;
        try {
          await hypervisor.withHostLock(one.id, async () => {
            // As it is now: it may have been woken since, or put to sleep by its tenant.
            const host = await records.livingHost(one.id);
            if (isWell(host) && host.power === one.power && host.idle === one.idle) await act(host);
          });
        } catch (error) {
          logger.error({ host: one.id, err: error }, 'A host could not be put to sleep; it is tried again');
        }
      }
    },
  };
}
