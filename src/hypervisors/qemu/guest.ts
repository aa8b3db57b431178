import { isDeepStrictEqual } from 'node:util';
import type { Guest } from '../../core/hypervisor/guest.ts';
import { type HostSpec, noRegistries } from '../../core/hypervisor/host-spec.ts';
import { enginePort } from '../../core/hypervisor/network.ts';
import { createGuestAgent, UnknownVerbError } from '../../guest/agent.ts';
import type { QemuDeps } from './deps.ts';
import { runningContainers, startContainer } from './engine/containers.ts';
import { engineAnswers } from './engine/engine.ts';
import { settleGrowth } from './grow-host.ts';
import { writeHostRecord } from './host-record.ts';
import { identifyGuest } from './identify-guest.ts';
import type { HostLayout } from './layout.ts';
import { agentTimeoutMs, engineTimeoutMs } from './timeouts.ts';

/** A clock that was set with a greater delay than this is corrected at once, not only by the next round. Milliseconds. */
const lateMs = 200;

async function correctClock(at: HostLayout, spec: HostSpec): Promise<boolean> {
  try {
    return await createGuestAgent(at.agentSocket).correctClock(agentTimeoutMs);
  } catch (error) {
    if (!(error instanceof UnknownVerbError)) throw error;
    // A guest of a former image.
    return identifyGuest(at, spec);
  }
}

export function createGuest(deps: QemuDeps): Guest {
  const { hosts, vms, logger } = deps;
  return {
    async identify(spec) {
      const at = hosts.layoutOfSpec(spec);
      await vms.requireAlive(at);
      const begun = performance.now();
      if (!(await identifyGuest(at, spec))) return false;
      const record = await hosts.requireRecord(spec.hostId);
      // An update waits itself for what it adds.
      const isUpdated = record.growing?.since !== undefined;
      if (!isUpdated && !(await settleGrowth(deps, at, record))) return false;
      // The guest has got the time of the request, and may have read it late.
      if (performance.now() - begun > lateMs) await correctClock(at, spec);
      return true;
    },

    async correctClock(spec) {
      const at = hosts.layoutOfSpec(spec);
      await vms.requireAlive(at);
      return correctClock(at, spec);
    },

    async configureRegistries(spec) {
      const at = hosts.layoutOfSpec(spec);
      await vms.requireAlive(at);
      const { hasRegistries = false, ...record } = await hosts.requireRecord(spec.hostId);
      const wantsRegistries = !isDeepStrictEqual(spec.registries, noRegistries);
      // Most creates want none, and should not wait for another round trip to the guest.
      if (!wantsRegistries && !hasRegistries) return true;
      // Recorded first: from here on the engine may have them.
      await writeHostRecord(at.record, { ...record, hasRegistries: true });
      if (!(await createGuestAgent(at.agentSocket).configure(spec.registries, agentTimeoutMs))) return false;
      await writeHostRecord(at.record, { ...record, hasRegistries: wantsRegistries });
      return true;
    },

    async engineAnswers(spec) {
      const at = hosts.layoutOfSpec(spec);
      if (await engineAnswers({ host: at.hostAddress, port: enginePort }, engineTimeoutMs)) return true;
      await vms.requireAlive(at);
      return false;
    },

    async runningContainers(spec) {
      const engine = { host: hosts.layoutOfSpec(spec).hostAddress, port: enginePort };
      return (await runningContainers(engine, engineTimeoutMs)).length;
    },

    async restartContainers(hostId) {
      const { slot, containers = [] } = await hosts.requireRecord(hostId);
      if (containers.length === 0) return true;
      const at = hosts.layout(hostId, slot);
      const engine = { host: at.hostAddress, port: enginePort };
      if (!(await engineAnswers(engine, engineTimeoutMs))) {
        await vms.requireAlive(at);
        return false;
      }
      const [next = '', ...left] = containers;
      await startContainer(engine, next).catch((error: unknown) => {
        logger.warn(
          { host: hostId, container: next, err: error },
          'A container did not start again; skipping it',
        );
      });
      await writeHostRecord(at.record, { ...(await hosts.requireRecord(hostId)), containers: left });
      return left.length === 0;
    },
  };
}
