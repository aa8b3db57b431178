import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { allCapabilities } from '../../core/hypervisor/capabilities.ts';
import { enginePort, type EngineAddress } from '../../core/hypervisor/network.ts';
import type { ObservedHost, StartedFrom } from '../../core/hypervisor/lifecycle.ts';
import { noRegistries, type HostSpec } from '../../core/hypervisor/host-spec.ts';
import type { Hypervisor } from '../../core/hypervisor/hypervisor.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import { leaseMs } from '../../core/lease-duration.ts';
import { exists } from '../../lib/exists.ts';
import { createGuestAgent } from '../../guest/agent.ts';
import { createGuestIdentity } from '../../guest/identity.ts';
import { createHostLocks } from '../host-locks.ts';
import { runTool } from '../run-tool.ts';
import { qemuProgram } from './launch/arguments.ts';
import { openCgroups } from './launch/cgroups.ts';
import { requireDiskSpace, wipeDisk } from './disk/disks.ts';
import { runningContainers, startContainer } from './engine/containers.ts';
import { engineAnswers } from './engine/engine.ts';
import { growDisk } from './disk/grow-disk.ts';
import { imageOfVersion, imageVersion } from './image/image-version.ts';
import { type HostRecord, newHostRecord, readHostRecord, writeHostRecord } from './host-record.ts';
import { type Jail, openJail } from './launch/jail.ts';
import { createDigests } from './integrity/digests.ts';
import { createManifests } from './integrity/manifest.ts';
import { verifyHost } from './integrity/verify.ts';
import { createVms } from './launch/vms.ts';
import { largestFile } from './launch/sizes.ts';
import { makeTemplate, removeTemplateVm } from './template/make-template.ts';
import { createHostNetworking } from './network/network.ts';
import type { QemuOptions } from './options.ts';
import { layoutOf, removeRunFiles, slotsIn, type HostLayout } from './layout.ts';
import { createRecordedRules } from './network/recorded-rules.ts';
import { createSuspension } from './memory/suspension.ts';
import { createVmStarter, hasRun } from './launch/vm-starter.ts';
import { killLeakedProcesses } from './launch/leaked-processes.ts';
import { readTraffic } from './network/traffic.ts';
import { createTemplateStore } from './template/template-store.ts';
import { isUuid } from '../../lib/uuid.ts';

/**
 * A restored guest answers within tenths of a second, and one that boots is asked again. On a busy machine, which
 * emulates it, an answer can take a second or two: who gives up before never gets one. Milliseconds.
 */
const agentTimeoutMs = 2_000;
const engineTimeoutMs = 3_000;
const powerOffTimeoutMs = 60_000;
/** A busy engine under emulation. */
const listTimeoutMs = 10_000;
/** A restored guest that has not come to rest by then is of no use to the pool. */
const warmTimeoutMs = 30_000;
const warmPollMs = 50;

/** There is one place on the machine where templates are made. */
const templateLock = 'template';
const templatePollMs = 1_000;

/**
 * Hosts as QEMU machines on this machine, each with a user, a control group and a network namespace of its own.
 * What exists is read from the machine itself; this object can be thrown away at any time, and another one
 * finds every host again.
 * @param parts.jail takes the place of the real one; for those who measure what that one costs.
 */
export async function createQemuHypervisor(
  options: QemuOptions,
  parts: { readonly jail?: Jail } = {},
): Promise<Hypervisor> {
  const { stateDirectory, runDirectory, image, logger } = options;
  const hostsDirectory = path.join(stateDirectory, 'hosts');
  const cgroups = await openCgroups(options.site);
  const network = createHostNetworking(options);
  const jail = parts.jail ?? (await openJail(stateDirectory, options.accelerator));
  const digests = createDigests();
  const manifests = createManifests(stateDirectory);
  const machines = createVms(options, cgroups, jail, manifests, logger);
  const version = await runTool(qemuProgram, ['--version']);
  const templates = createTemplateStore(options, image, version, digests, logger);
  const templateParts = { options, cgroups, network, vms: machines };
  const locks = createHostLocks(path.join(runDirectory, 'locks'), { patienceMs: leaseMs, logger });
  const locked = locks.withLock;
  const sleep = createSuspension({ cgroups, vms: machines });
  const starts = createVmStarter(options, { cgroups, vms: machines, templates, digests });
  const rules = createRecordedRules(manifests, network, logger);
  /** Keys of the catalog's plans, as far as they have been asked about. */
  const keys = new Map<string, string>();
  const silences = new Map<string, number>();

  const place = (id: string, slot: number) => layoutOf(options, id, slot);
  const placeOfSpec = (spec: HostSpec) => place(spec.hostId, spec.slot);
  const recordFile = (hostId: string) => path.join(hostsDirectory, hostId, 'host.json');
  const isAlive = async (hostId: string) => (await cgroups.processes(hostId)).length > 0;

  async function requireRecord(hostId: string): Promise<HostRecord> {
    const record = await readHostRecord(recordFile(hostId));
    if (record === undefined) throw new HypervisorError(`host ${hostId} has not been prepared`);
    return record;
  }

  async function resume(at: HostLayout, record: HostRecord): Promise<boolean> {
    await starts.killUnfinishedLaunch(at);
    return sleep.resume(at, record, (memoryImage) => starts.load(at, record, memoryImage));
  }

  /**
   * Has the guest and its engine answer once: what they do for the first time takes several times as long, and no
   * tenant waits now. The engine is reached like any tenant's, with nothing published and nothing let out, and
   * then cut off again.
   * @throws HypervisorError where either does not answer in time.
   */
  async function warm(at: HostLayout, { hostId, publishedPorts }: HostSpec): Promise<void> {
    const nothing = { first: publishedPorts.first, count: 0 };
    const deadline = performance.now() + warmTimeoutMs;
    const until = async (answers: () => Promise<boolean>) => {
      while (!(await answers())) {
        await machines.requireAlive(at);
        if (performance.now() > deadline) throw new HypervisorError(`host ${hostId} does not answer`);
        await delay(warmPollMs);
      }
    };
    await until(() => createGuestAgent(at.agentSocket).identify(createGuestIdentity(hostId), agentTimeoutMs));
    await network.connect(at, nothing, { kind: 'none' }, nothing);
    await until(() => engineAnswers({ host: at.hostAddress, port: enginePort }, engineTimeoutMs));
    await network.disconnect(at, nothing);
    await rules.write(at, await network.facts(at));
  }

  /** Lets a machine go that was held for the pool. */
  async function letGo(at: HostLayout, record: HostRecord): Promise<void> {
    // On record first: from the first instruction on it may be its tenant's, and is never made anew.
    await writeHostRecord(at.record, { ...record, parked: false });
    await machines.run(at);
  }

  async function stateOf(hostId: string): Promise<ObservedHost['state']> {
    const record = await readHostRecord(recordFile(hostId));
    if (await isAlive(hostId)) {
      return record?.parked === true || record?.power === 'paused' ? 'paused' : 'running';
    }
    return record !== undefined && (await sleep.isSuspended(place(hostId, record.slot)))
      ? 'suspended'
      : 'stopped';
  }

  /**
   * Writes down which containers run, before they are stopped. Those that an earlier stop has written down, and
   * that have not been started again since, are among them.
   */
  async function noteContainers(at: HostLayout): Promise<void> {
    const engine = { host: at.hostAddress, port: enginePort };
    try {
      if (!(await engineAnswers(engine, engineTimeoutMs))) return;
      const running = await runningContainers(engine, listTimeoutMs);
      const record = await requireRecord(at.id);
      const containers = [...new Set([...(record.containers ?? []), ...running])];
      await writeHostRecord(at.record, { ...record, containers });
    } catch (error) {
      logger.warn({ host: at.id, err: error }, 'A host is stopped, and which containers it ran is not known');
    }
  }

  async function listHosts(): Promise<readonly ObservedHost[]> {
    const names = await readdir(hostsDirectory).catch(() => []);
    return Promise.all(
      names
        .filter((name) => isUuid(name))
        .map(async (hostId): Promise<ObservedHost> => ({ hostId, state: await stateOf(hostId) })),
    );
  }

  async function templatesInUse(): Promise<ReadonlySet<string>> {
    const hosts = await listHosts();
    const records = await Promise.all(hosts.map(({ hostId }) => readHostRecord(recordFile(hostId))));
    return new Set(records.map((record) => record?.template).filter((key) => key !== undefined));
  }

  return {
    name: 'qemu',
    capabilities: allCapabilities,
    imageVersion: imageVersion(image.digest),

    async open() {
      await mkdir(hostsDirectory, { recursive: true, mode: 0o711 });
      await mkdir(runDirectory, { recursive: true, mode: 0o755 });
      const foreign = await network.open();
      if (foreign.length > 0) {
        logger.error({ foreign }, "Rules that were not Berth's were in its table; they were removed");
      }
      // What a killed worker has left; one that another worker is making is not ours to end.
      await locks.tryWithLock(templateLock, () => removeTemplateVm(templateParts));
      if (options.loadAhead) templates.preload();
    },

    async close() {
      await templates.close();
    },

    async hasTemplate(planName) {
      const key = keys.get(planName);
      return key !== undefined && templates.has(key);
    },

    async makeTemplate(plan, report, signal) {
      const key = templates.key(plan.planName, plan.shape);
      keys.set(plan.planName, key);
      const make = async () => {
        if (await templates.has(key)) return;
        if ((await templates.isDamaged(key)) && (await templatesInUse()).has(key)) {
          throw new HypervisorError(
            `The template in ${templates.directory(key)} is damaged, and hosts have its disk below their own: it can be made anew once those have been destroyed`,
          );
        }
        await makeTemplate(templateParts, plan, { key, directory: templates.directory(key) }, report, signal);
        await templates.removeOthers(plan.planName, key, await templatesInUse());
      };
      while (!(await templates.has(key))) {
        await locks.tryWithLock(templateLock, make);
        if (await templates.has(key)) return;
        report('waiting for another worker, which is making a template');
        await delay(templatePollMs, undefined, { signal });
      }
    },

    withHostLock: locked,

    prepare: (spec) =>
      locked(spec.hostId, async () => {
        if (spec.slot < 1 || spec.slot > slotsIn(options.hostNetwork)) {
          throw new HypervisorError(`slot ${spec.slot} has no address in ${options.hostNetwork}`);
        }
        // A machine that runs has all of it, and may be somebody's already.
        if (await isAlive(spec.hostId)) return;
        const at = placeOfSpec(spec);
        const record = (await readHostRecord(at.record)) ?? newHostRecord(spec, image.digest);
        await writeHostRecord(at.record, record);
        await Promise.all([
          network.make(at),
          record.startedFrom === undefined ? starts.newDisk(at, record) : undefined,
        ]);
      }),

    park: (spec) =>
      locked(spec.hostId, async () => {
        const at = placeOfSpec(spec);
        const record = await requireRecord(spec.hostId);
        const key = templates.key(spec.planName, spec.shape);
        const isReady = record.parked && record.template === key && (await templates.has(key));
        if (await isAlive(spec.hostId)) {
          if (isReady) return true;
          if (record.startedFrom !== undefined) return false;
          await cgroups.kill(spec.hostId);
        } else if (hasRun(record)) return false;
        const fresh = await starts.freshDisk(at, record);
        const template = fresh.template === key ? await templates.load(key) : undefined;
        if (template === undefined) return false;
        await starts.restore(at, fresh, template);
        await warm(at, spec);
        await machines.pause(at);
        await writeHostRecord(at.record, { ...fresh, startedFrom: 'pool', parked: true });
        return true;
      }),

    start: (spec) =>
      locked(spec.hostId, async () => {
        const at = placeOfSpec(spec);
        const record = await requireRecord(spec.hostId);
        if (await isAlive(spec.hostId)) {
          if (record.parked) return letGo(at, record);
          // Somebody was killed while starting it. Nobody has seen it yet.
          if (record.startedFrom === undefined) await cgroups.kill(spec.hostId);
        }
        if (await resume(at, record)) return;
        await writeHostRecord(at.record, await starts.start(at, record));
      }),

    pause: (hostId) =>
      locked(hostId, async () => {
        const record = await requireRecord(hostId);
        const at = place(hostId, record.slot);
        await machines.requireAlive(at);
        await sleep.pause(at, record);
      }),

    suspend: (hostId) =>
      locked(hostId, async () => {
        const record = await requireRecord(hostId);
        const at = place(hostId, record.slot);
        if (await sleep.isSuspended(at)) return;
        await machines.requireAlive(at);
        await sleep.suspend(at, record);
      }),

    resume: (spec) =>
      locked(spec.hostId, async () => {
        const at = placeOfSpec(spec);
        const record = await requireRecord(spec.hostId);
        if (!(await resume(at, record))) await machines.requireAlive(at);
      }),

    traffic: (specs) => readTraffic(specs.map(placeOfSpec)),

    runningContainers: async (spec) =>
      (await runningContainers({ host: placeOfSpec(spec).hostAddress, port: enginePort }, engineTimeoutMs))
        .length,

    identify: (spec) =>
      locked(spec.hostId, async () => {
        const at = placeOfSpec(spec);
        await machines.requireAlive(at);
        return createGuestAgent(at.agentSocket).identify(createGuestIdentity(spec.hostId), agentTimeoutMs);
      }),

    configureRegistries: (spec) =>
      locked(spec.hostId, async () => {
        const at = placeOfSpec(spec);
        await machines.requireAlive(at);
        const { hasRegistries = false, ...record } = await requireRecord(spec.hostId);
        const wantsThem = !isDeepStrictEqual(spec.registries, noRegistries);
        // As after most creates, which are not to wait for another question to the guest.
        if (!wantsThem && !hasRegistries) return true;
        // On record first: from here on it may have them.
        await writeHostRecord(at.record, { ...record, hasRegistries: true });
        if (!(await createGuestAgent(at.agentSocket).configure(spec.registries, agentTimeoutMs)))
          return false;
        await writeHostRecord(at.record, { ...record, hasRegistries: wantsThem });
        return true;
      }),

    connect: (spec) =>
      locked(spec.hostId, async (): Promise<EngineAddress> => {
        const at = placeOfSpec(spec);
        if (await isQuarantined(at)) throw new HypervisorError(`host ${spec.hostId} is in quarantine`);
        const record = await requireRecord(spec.hostId);
        const { publishedPorts, egress } = spec;
        const isOther = !isDeepStrictEqual(record.publishedPorts, publishedPorts);
        if (isOther) await writeHostRecord(at.record, { ...record, publishedPorts: undefined });
        const former = isOther ? undefined : publishedPorts;
        await rules.reportDrift(at);
        await rules.remove(at);
        const firewall = await network.connect(at, publishedPorts, egress, former);
        if (isOther) await writeHostRecord(at.record, { ...record, publishedPorts });
        await rules.write(at, firewall);
        return { host: at.hostAddress, port: enginePort };
      }),

    async engineAnswers(spec) {
      const at = placeOfSpec(spec);
      if (await engineAnswers({ host: at.hostAddress, port: enginePort }, engineTimeoutMs)) return true;
      await machines.requireAlive(at);
      return false;
    },

    async startedFrom(hostId): Promise<StartedFrom> {
      const { startedFrom } = await requireRecord(hostId);
      if (startedFrom === undefined) throw new HypervisorError(`host ${hostId} has never run`);
      return startedFrom;
    },

    async imageVersionOf(hostId) {
      return imageVersion((await requireRecord(hostId)).image);
    },

    reshape: (spec) =>
      locked(spec.hostId, async () => {
        const at = placeOfSpec(spec);
        const record = await requireRecord(spec.hostId);
        if (await isAlive(spec.hostId)) {
          throw new HypervisorError(`host ${spec.hostId} runs: it must be stopped first`);
        }
        const own = await imageOfVersion(path.join(stateDirectory, 'images'), spec.imageVersion);
        await requireDiskSpace(at.directory);
        await growDisk(at.disk, spec.shape.diskGib, at.uid, largestFile(spec.shape));
        await writeHostRecord(at.record, {
          ...record,
          planName: spec.planName,
          // A disk that has grown stays so, whatever the plan says.
          shape: { ...spec.shape, diskGib: Math.max(spec.shape.diskGib, record.shape.diskGib) },
          baseDiskGib: record.baseDiskGib ?? record.shape.diskGib,
          image: own ?? record.image,
        });
      }),

    restartContainers: (hostId) =>
      locked(hostId, async () => {
        const { slot, containers = [] } = await requireRecord(hostId);
        if (containers.length === 0) return true;
        const at = place(hostId, slot);
        const engine = { host: at.hostAddress, port: enginePort };
        if (!(await engineAnswers(engine, engineTimeoutMs))) {
          await machines.requireAlive(at);
          return false;
        }
        const [next = '', ...left] = containers;
        await startContainer(engine, next).catch((error: unknown) => {
          logger.warn({ host: hostId, container: next, err: error }, 'A container did not start again');
        });
        await writeHostRecord(at.record, { ...(await requireRecord(hostId)), containers: left });
        return left.length === 0;
      }),

    stop: (hostId) =>
      locked(hostId, async () => {
        const record = await readHostRecord(recordFile(hostId));
        if (record === undefined) return;
        const at = place(hostId, record.slot);
        // What is only in its memory must reach its disk. A machine whose monitor is gone has ended, or is ended below.
        const isSuspended = await sleep.isSuspended(at);
        const runs = await resume(at, record).catch((error: unknown) => {
          if (isSuspended) throw error;
          logger.warn({ host: hostId, err: error }, 'A machine could not be asked to end; it is ended');
          return false;
        });
        if (runs) await noteContainers(at);
        await network.disconnect(at, record.publishedPorts);
        if (runs) {
          await createGuestAgent(at.agentSocket)
            .powerOff(agentTimeoutMs)
            .catch(() => false);
          await cgroups.untilEmpty(hostId, powerOffTimeoutMs);
        }
        await cgroups.kill(hostId);
        await killLeakedProcesses(at);
      }),

    destroy: (hostId) =>
      locked(hostId, async () => {
        const record = await readHostRecord(recordFile(hostId));
        await cgroups.kill(hostId);
        await cgroups.remove(hostId);
        machines.forget(hostId);
        silences.delete(hostId);
        if (record !== undefined) {
          const at = place(hostId, record.slot);
          await killLeakedProcesses(at);
          await network.destroy(at, record.publishedPorts);
          await wipeDisk(at.disk);
          await sleep.wipe(at);
          await removeRunFiles(at);
        }
        // Last of all: while its folder stands, the host can be found.
        await rm(path.join(hostsDirectory, hostId), { recursive: true, force: true });
      }),

    list: listHosts,

    verify: (hostId) =>
      locked(hostId, async () => {
        const { slot } = await requireRecord(hostId);
        return verifyHost(place(hostId, slot), {
          cgroups,
          network,
          manifests,
          digests,
          silentChecks: silences,
        });
      }),

    quarantine: (hostId) =>
      locked(hostId, async () => {
        const record = await readHostRecord(recordFile(hostId));
        if (record === undefined) return;
        const at = place(hostId, record.slot);
        // First of all: whoever is killed after this has not half done it.
        await writeFile(quarantineMark(at), '');
        await network.disconnect(at, record.publishedPorts);
      }),

    release: (hostId) =>
      locked(hostId, async () => {
        const record = await readHostRecord(recordFile(hostId));
        if (record === undefined) return;
        const at = place(hostId, record.slot);
        // Cut off, it had other rules. A manifest that can't be read is found by the next check.
        await rules.remove(at).catch((error: unknown) => {
          logger.warn(
            { host: hostId, err: error },
            'The manifest of a host that leaves its quarantine is not whole',
          );
        });
        await rm(quarantineMark(at), { force: true });
      }),

    async memoryUsage(hostId) {
      const processes = await cgroups.processes(hostId);
      if (processes.length === 0) return undefined;
      const sizes = await Promise.all(processes.map(proportionalKib));
      return { pssMib: sizes.reduce((sum, size) => sum + size, 0) / 1024 };
    },
  };
}

/** Is there while a host is in quarantine. */
const quarantineMark = (at: HostLayout) => path.join(at.directory, 'quarantined');

const isQuarantined = (at: HostLayout) => exists(quarantineMark(at));

/** Proportional set size of a process in KiB (proc(5), smaps_rollup); 0 where it has just ended. */
async function proportionalKib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0);
}
