import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { HostTraffic } from '../core/hypervisor/power.ts';
import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';
import type { Host } from '../core/model/host.ts';
import { toHostSpec } from '../core/model/host-spec.ts';
import type { Records } from '../core/ports/store.ts';
import { createHostTasks } from './host-tasks.ts';
import type { PowerSwitch } from './power-switch.ts';

/** Pauses and suspends idle hosts, by their idle policy. */
export interface IdleController {
  /** Looks at all hosts once. Also completes a pause or suspend that a killed worker has left half done. */
  runOnce(): Promise<void>;
}

/** One worker at a time pauses idle hosts. Milliseconds. */
const leadershipMs = 15_000;

/** How long the connection of our own query may outlive its answer: the guest closes it too. Milliseconds. */
const queryEndsMs = 1_000;
const queryPollMs = 20;

const noTraffic: HostTraffic = { connections: 0, packets: 0 };

/**
 * @param deps.pauseAfterMs how long a host must have been idle: no connection, no packet, no running container.
 * @param deps.suspendAfterMs how long it must have been paused then, if its policy is to suspend.
 */
export function createIdleController(deps: {
  records: Records;
  hypervisor: Hypervisor;
  logger: Logger;
  power: PowerSwitch;
  pauseAfterMs: number;
  suspendAfterMs: number;
}): IdleController {
  const { records, hypervisor, logger, power, pauseAfterMs, suspendAfterMs } = deps;
  const owner = randomUUID();
  /** Since when no packet has been sent to a host, as far as this process knows (`performance.now()`). */
  const quiet = new Map<string, { packets: number; since: number }>();

  const trafficOf = async (host: Host) =>
    (await hypervisor.traffic([toHostSpec(host)])).get(host.id) ?? noTraffic;
  const isUsed = async (host: Host) => (await trafficOf(host)).connections > 0;

  /** Whether a host has had no traffic for long enough, and has been running for as long. */
  function isQuiet(host: Host, { connections, packets }: HostTraffic): boolean {
    const known = quiet.get(host.id);
    const now = performance.now();
    if (known === undefined || connections > 0 || packets !== known.packets) {
      quiet.set(host.id, { packets, since: now });
      return false;
    }
    return now - known.since >= pauseAfterMs && Date.now() - host.powerSince.getTime() >= pauseAfterMs;
  }

  /** The packet count once the connection of our own query is closed; undefined: there are other connections. */
  async function packetsAfterQuery(host: Host): Promise<number | undefined> {
    const begun = performance.now();
    for (;;) {
      const { connections, packets } = await trafficOf(host);
      if (connections === 0) return packets;
      if (performance.now() - begun > queryEndsMs) return undefined;
      await delay(queryPollMs);
    }
  }

  async function pauseIfIdle(host: Host): Promise<void> {
    if (!isQuiet(host, await trafficOf(host))) return;
    const running = await hypervisor.runningContainers(toHostSpec(host));
    const packetsAfter = await packetsAfterQuery(host);
    // The query itself sent packets.
    quiet.set(host.id, { packets: packetsAfter ?? -1, since: performance.now() });
    if (running > 0 || packetsAfter === undefined) return;
    await power.powerDown(host, 'paused', async () => {
      const { connections, packets } = await trafficOf(host);
      // A client that has come and gone since the query may have started a container.
      return connections > 0 || packets !== packetsAfter;
    });
  }

  /** Open connections don't count: they are as old as the pause, and gateways ask for a wake when their clients send. */
  const suspendPaused = (host: Host) => power.powerDown(host, 'suspended', () => Promise.resolve(false));

  async function pauseAgain(host: Host): Promise<void> {
    await hypervisor.pause(host.id);
    if (await isUsed(host)) await power.wake(host);
  }

  /** Postgres has lost the transaction that recorded its sleep, so nothing would ask for a wake. */
  async function wakeForgotten(host: Host): Promise<void> {
    const state = (await hypervisor.list()).find(({ hostId }) => hostId === host.id)?.state;
    if (state === 'paused' || state === 'suspended') await power.wake({ ...host, power: state });
  }

  /** What to do with a host, by its row and its observed state; undefined: nothing, the usual case. */
  function dueAct(
    host: Host,
    observed: ObservedHost['state'] | undefined,
    traffic: HostTraffic,
  ): ((host: Host) => Promise<void>) | undefined {
    if (observed === 'unreadable') return undefined;
    switch (host.power) {
      case 'running':
        if (observed === 'paused' || observed === 'suspended') return wakeForgotten;
        return host.idle !== 'run' && isQuiet(host, traffic) ? pauseIfIdle : undefined;
      case 'paused':
        // Left by a worker that was killed between recording the pause and the pause itself.
        if (observed === 'running') return pauseAgain;
        return host.idle === 'suspend' && Date.now() - host.powerSince.getTime() >= suspendAfterMs
          ? suspendPaused
          : undefined;
      case 'suspended':
        return observed === 'running' || observed === 'paused'
          ? ({ id }) => hypervisor.suspend(id)
          : undefined;
    }
  }

  const tasks = createHostTasks({
    failed: 'An idle host could not be paused; retrying after a pause that grows to 5 min',
    logger,
  });

  const actLocked = (one: Host, act: (host: Host) => Promise<void>) =>
    hypervisor.withHostLock(one.id, async () => {
      // Read again under the lock: it may have been woken, or paused by its tenant.
      const host = await records.livingHost(one.id);
      if (isUsable(host) && host.power === one.power && host.idle === one.idle) await act(host);
    });

  const isUsable = (host: Host | undefined): host is Host =>
    host?.state === 'running' && host.engine !== undefined && !host.quarantined;

  return {
    async runOnce() {
      if (!(await records.acquireLeadership('sleep', owner, leadershipMs))) return;
      const states = new Map((await hypervisor.list()).map(({ hostId, state }) => [hostId, state]));
      const hosts = (await records.livingHosts()).filter(isUsable);
      const known = new Set(hosts.map(({ id }) => id));
      for (const id of quiet.keys()) if (!known.has(id)) quiet.delete(id);
      const candidates = hosts.filter(({ power: now, idle }) => now === 'running' && idle !== 'run');
      const traffic =
        candidates.length === 0
          ? new Map<string, HostTraffic>()
          : await hypervisor.traffic(candidates.map(toHostSpec));
      const due = new Map<string, () => Promise<void>>();
      for (const one of hosts) {
        const act = dueAct(one, states.get(one.id), traffic.get(one.id) ?? noTraffic);
        if (act !== undefined) due.set(one.id, () => actLocked(one, act));
      }
      await tasks.run([...due.keys()], async (id) => due.get(id)?.());
    },
  };
}
