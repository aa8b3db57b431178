import { rm } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { enginePort } from '../../core/hypervisor/network.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import type { Lifecycle, ObservedHost } from '../../core/hypervisor/lifecycle.ts';
import { addressPairs } from '../../lib/ipv4.ts';
import { createGuestAgent } from '../../guest/agent.ts';
import { hostIdOf } from '../host-methods.ts';
import { createHostObserver } from '../observe-host.ts';
import type { QemuDeps } from './deps.ts';
import { requireDiskSpace, wipeDisk } from './disk/disks.ts';
import { growDisk } from './disk/grow-disk.ts';
import { runningContainers } from './engine/containers.ts';
import { engineAnswers } from './engine/engine.ts';
import { claimHost, growHost } from './grow-host.ts';
import { boundsOf, type HostRecord, newHostRecord, readHostRecord, writeHostRecord } from './host-record.ts';
import { imageOfVersion, imageVersion } from './image/image-version.ts';
import { addedMemoryMib } from './launch/arguments.ts';
import { killLeakedProcesses } from './launch/leaked-processes.ts';
import { hasRun } from './launch/vm-starter.ts';
import { largestFile } from './launch/sizes.ts';
import { type HostLayout, removeRunFiles } from './layout.ts';
import { resumeHost } from './resume-host.ts';
import { agentTimeoutMs, engineTimeoutMs } from './timeouts.ts';

const powerOffTimeoutMs = 60_000;
/** A busy engine under emulation. */
const listTimeoutMs = 10_000;

export function createLifecycle(deps: QemuDeps): Lifecycle {
  const { options, image, hosts, cgroups, network, recordedRules } = deps;
  const { vms, starter, suspension, silentChecks, logger } = deps;

  async function stateOf(hostId: string, record: HostRecord | undefined): Promise<ObservedHost['state']> {
    if (await hosts.isAlive(hostId)) {
      return record?.parked === true || record?.power === 'paused' ? 'paused' : 'running';
    }
    return record !== undefined && (await suspension.isSuspended(hosts.layout(hostId, record.slot)))
      ? 'suspended'
      : 'stopped';
  }

  async function observeReadable(hostId: string): Promise<ObservedHost> {
    const record = await hosts.record(hostId);
    const { owner, slot, parked = false } = record ?? {};
    const used = record !== undefined && hasRun(record);
    const memoryLostAt = record?.memoryLost === undefined ? undefined : new Date(record.memoryLost.at);
    return { hostId, state: await stateOf(hostId, record), owner, slot, parked, hasRun: used, memoryLostAt };
  }
  const observe = createHostObserver(observeReadable, (hostId) => hosts.slotByDisk(hostId), logger);

  /**
   * Records which containers run, before they are stopped. Those that an earlier stop recorded and that were not
   * started again since stay recorded.
   */
  async function recordContainers(at: HostLayout): Promise<void> {
    const engine = { host: at.hostAddress, port: enginePort };
    try {
      if (!(await engineAnswers(engine, engineTimeoutMs))) return;
      const running = await runningContainers(engine, listTimeoutMs);
      const record = await hosts.requireRecord(at.id);
      const containers = [...new Set([...(record.containers ?? []), ...running])];
      await writeHostRecord(at.record, { ...record, containers });
    } catch (error) {
      logger.warn(
        { host: at.id, err: error },
        'The running containers could not be listed before a stop; they will not be started again',
      );
    }
  }

  return {
    async prepare(spec) {
      if (spec.slot < 1 || spec.slot > addressPairs(options.hostNetwork)) {
        throw new HypervisorError(`slot ${spec.slot} has no address in ${options.hostNetwork}`);
      }
      // A VM that runs has all of it, and may be a tenant's already.
      if (await hosts.isAlive(spec.hostId)) return;
      const at = hosts.layoutOfSpec(spec);
      const record = (await readHostRecord(at.record)) ?? newHostRecord(spec, image.require().digest);
      await writeHostRecord(at.record, record);
      // Closing the network of a suspended host would end its streams.
      const isOpen = (await suspension.isSuspended(at)) && (await recordedRules.areInForce(at));
      await Promise.all([
        isOpen ? undefined : network.make(at),
        record.startedFrom === undefined ? starter.newDisk(at, record) : undefined,
      ]);
    },

    async start(spec) {
      const at = hosts.layoutOfSpec(spec);
      const found = await hosts.requireRecord(spec.hostId);
      const isAlive = await hosts.isAlive(spec.hostId);
      if (isAlive && found.parked) {
        try {
          await claimHost(deps, spec, at, found);
          return;
        } catch (error) {
          if (!(error instanceof HypervisorError)) throw error;
          logger.warn(
            { host: spec.hostId, err: error },
            'A host of the pool could not be given to its instance; it is made again',
          );
        }
      }
      const unused = isAlive && found.parked ? { ...found, parked: false, startedFrom: undefined } : found;
      // It was parked with the size of a smaller plan.
      const changes = hasRun(found) ? {} : { planName: spec.planName, shape: spec.shape };
      const record = { ...unused, ...changes, owner: spec.owner };
      // Recorded first: from its first instruction on the VM is its owner's, and nobody else ever gets it.
      if (!isDeepStrictEqual(record, found)) await writeHostRecord(at.record, record, true);
      // A worker was killed while it started this VM, which nobody has used yet.
      if (isAlive && record.startedFrom === undefined) await cgroups.kill(spec.hostId);
      const outcome = await resumeHost(deps, at, record);
      if (outcome === 'resumed') return;
      // Only a network that was left open for the streams of a suspended host is not closed already.
      if (outcome === 'memory lost') await network.make(at);
      // Resuming may have changed the record.
      await writeHostRecord(at.record, await starter.start(at, await hosts.requireRecord(spec.hostId)));
      await suspension.wipeUnusable(at);
    },

    async stop(hostId) {
      const record = await hosts.record(hostId);
      if (record === undefined) return;
      const at = hosts.layout(hostId, record.slot);
      // Writes that the guest has not flushed must reach its disk. A VM whose monitor is gone has ended, or is killed below.
      const isSuspended = await suspension.isSuspended(at);
      const outcome = await resumeHost(deps, at, record).catch((error: unknown) => {
        if (isSuspended) throw error;
        logger.warn({ host: hostId, err: error }, 'A VM could not be asked to shut down; killing it');
        return 'nothing';
      });
      const runs = outcome === 'resumed';
      if (runs) await recordContainers(at);
      await network.disconnect(at, record.publishedPorts);
      if (runs) {
        await createGuestAgent(at.agentSocket)
          .powerOff(agentTimeoutMs)
          .catch(() => false);
        await cgroups.untilEmpty(hostId, powerOffTimeoutMs);
      }
      await cgroups.kill(hostId);
      await killLeakedProcesses(at);
    },

    async reshape(spec) {
      const at = hosts.layoutOfSpec(spec);
      const record = await hosts.requireRecord(spec.hostId);
      if (await hosts.isAlive(spec.hostId)) {
        throw new HypervisorError(`host ${spec.hostId} runs: it must be stopped first`);
      }
      const newImage = await imageOfVersion(path.join(options.stateDirectory, 'images'), spec.imageVersion);
      await requireDiskSpace(at.directory, { reserveMib: options.diskReserveMib });
      await growDisk(at.disk, spec.shape.diskGib, at.uid, largestFile(spec.shape));
      await writeHostRecord(at.record, {
        ...record,
        planName: spec.planName,
        // A disk never shrinks, even if the plan is smaller.
        shape: { ...spec.shape, diskGib: Math.max(spec.shape.diskGib, record.shape.diskGib) },
        baseDiskGib: record.baseDiskGib ?? record.shape.diskGib,
        image: newImage ?? record.image,
      });
    },

    grow: (spec) => growHost(deps, spec),

    async hasShape(spec) {
      const { vcpus, memoryMib, diskGib } = spec.shape;
      const record = await hosts.requireRecord(spec.hostId);
      const { shape, growing } = record;
      if (shape.vcpus !== vcpus || shape.memoryMib !== memoryMib || shape.diskGib < diskGib) return false;
      if (!(await hosts.isAlive(spec.hostId))) return true;
      const vm = await vms.sizeOf(hosts.layoutOfSpec(spec));
      const { start } = boundsOf(record);
      const expectedMib = start.memoryMib + addedMemoryMib(start, shape);
      return growing === undefined && vm.memoryMib === expectedMib && vm.diskGib >= diskGib;
    },

    async destroy(host) {
      const hostId = hostIdOf(host);
      // Of an unreadable host, which the caller has decided to destroy, the firewall knows the ports.
      const record = await hosts.record(hostId).catch(() => undefined);
      const slot = record?.slot ?? (await hosts.slotByDisk(hostId));
      await cgroups.kill(hostId);
      await cgroups.remove(hostId);
      vms.forget(hostId);
      silentChecks.delete(hostId);
      if (slot !== undefined) {
        const at = hosts.layout(hostId, slot);
        await killLeakedProcesses(at);
        await network.destroy(at, record?.publishedPorts);
        await wipeDisk(at.disk);
        await suspension.wipe(at);
        await removeRunFiles(at);
      }
      // Last: as long as this folder exists, the host is listed.
      await rm(path.join(hosts.directory, hostId), { recursive: true, force: true });
    },

    async recordOwner({ hostId, owner }) {
      const record = await hosts.record(hostId);
      if (record === undefined || record.owner !== undefined || !hasRun(record)) return;
      await writeHostRecord(hosts.layout(hostId, record.slot).record, { ...record, owner }, true);
    },

    async list() {
      return Promise.all((await hosts.ids()).map(observe));
    },

    async startedFrom(hostId) {
      const { startedFrom } = await hosts.requireRecord(hostId);
      if (startedFrom === undefined) throw new HypervisorError(`host ${hostId} has never run`);
      return startedFrom;
    },

    async imageVersionOf(hostId) {
      return imageVersion((await hosts.requireRecord(hostId)).image);
    },
  };
}
