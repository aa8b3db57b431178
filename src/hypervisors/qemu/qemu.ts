import { mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import {
  type EngineAddress,
  enginePort,
  type HostSeen,
  type HostSpec,
  type Hypervisor,
  HypervisorError,
  type StartedFrom,
} from '../../core/hypervisor.ts';
import { createGuestAgent } from '../../guest/agent.ts';
import { createGuestIdentity } from '../../guest/identity.ts';
import { runTool } from '../process.ts';
import { type DiskChain, qemuProgram } from './arguments.ts';
import { openCgroups } from './cgroup.ts';
import { createOverlay, ensureBaseDisk, wipeDisk } from './disks.ts';
import { engineAnswers } from './engine.ts';
import { readImage } from './guest-image.ts';
import { type HostRecord, newHostRecord, readHostRecord, writeHostRecord } from './host-record.ts';
import { type Jail, openJail } from './jail.ts';
import { createLocks } from './locks.ts';
import { createMachines } from './machine.ts';
import { makeTemplate, removeTemplateMachine } from './make-template.ts';
import { createHostNetwork } from './network.ts';
import type { QemuOptions } from './options.ts';
import { type Place, placeOf, removeRunFiles, slotsIn } from './place.ts';
import { createTemplateStore, type LoadedTemplate } from './templates.ts';

/** A restored guest answers within tenths of a second; one that boots is asked again. Milliseconds. */
const agentTimeoutMs = 700;
const engineTimeoutMs = 1_000;
const powerOffTimeoutMs = 20_000;

const hostName = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

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
  const network = createHostNetwork(options);
  const jail = parts.jail ?? (await openJail(stateDirectory));
  const machines = createMachines(options, cgroups, jail, logger);
  const version = await runTool(qemuProgram, ['--version']);
  const templates = createTemplateStore(options, image, version, logger);
  const templateParts = { options, cgroups, network, machines };
  const locked = createLocks();
  /** Keys of the catalog's plans, as far as they have been asked about. */
  const keys = new Map<string, string>();

  const place = (id: string, slot: number) => placeOf(options, id, slot);
  const placeOfSpec = (spec: HostSpec) => place(spec.hostId, spec.slot);
  const recordFile = (hostId: string) => path.join(hostsDirectory, hostId, 'host.json');
  const isAlive = async (hostId: string) => (await cgroups.processes(hostId)).length > 0;

  async function requireRecord(hostId: string): Promise<HostRecord> {
    const record = await readHostRecord(recordFile(hostId));
    if (record === undefined) throw new HypervisorError(`host ${hostId} has not been prepared`);
    return record;
  }

  async function diskChain(at: Place, record: HostRecord): Promise<DiskChain> {
    const base = await ensureBaseDisk(stateDirectory, record.shape.diskGib);
    const template =
      record.template === undefined
        ? undefined
        : path.join(templates.directory(record.template), 'disk.qcow2');
    return { own: at.disk, template, base };
  }

  /** Gives the host an untouched disk: over the template's where there is one, else over an empty one. */
  async function newDisk(at: Place, record: HostRecord): Promise<HostRecord> {
    const template = await templates.load(templates.key(record.planName, record.shape));
    const base = await ensureBaseDisk(stateDirectory, record.shape.diskGib);
    const fresh = { ...record, image: image.digest, template: template?.key, diskIsUsed: false };
    // On record before the disk is: a template that is in use is not removed.
    await writeHostRecord(at.record, fresh);
    await createOverlay(
      at.disk,
      template === undefined ? { file: base, format: 'raw' } : { file: template.disk, format: 'qcow2' },
      record.shape.diskGib,
      at.uid,
    );
    return fresh;
  }

  async function restore(at: Place, record: HostRecord, template: LoadedTemplate): Promise<void> {
    const state = await open(template.deviceState, 'r');
    try {
      await machines.launch(at, {
        shape: record.shape,
        image,
        memory: { kind: 'template' },
        disk: await diskChain(at, record),
        memoryDescriptor: template.memory.fd,
        stateDescriptor: state.fd,
      });
      await machines.resume(at);
    } catch (error) {
      await cgroups.kill(at.id);
      // The next attempt boots cold: slower, but it works.
      templates.distrust(template.key);
      throw error;
    } finally {
      await state.close();
    }
  }

  async function boot(at: Place, record: HostRecord): Promise<void> {
    const own =
      record.image === image.digest
        ? image
        : await readImage(path.join(stateDirectory, 'images', record.image));
    await machines.launch(at, {
      shape: record.shape,
      image: own,
      memory: { kind: 'own' },
      disk: await diskChain(at, record),
    });
  }

  async function startMachine(at: Place, found: HostRecord): Promise<HostRecord> {
    if (found.startedFrom !== undefined) {
      await boot(at, found);
      return { ...found, startedFrom: 'boot' };
    }
    // It has never been anybody's: whatever an attempt that was killed has done to its disk goes.
    const record = found.diskIsUsed ? await newDisk(at, found) : found;
    const template = record.template === undefined ? undefined : await templates.load(record.template);
    await writeHostRecord(at.record, { ...record, diskIsUsed: true });
    if (template !== undefined) await restore(at, record, template);
    else await boot(at, record);
    return { ...record, diskIsUsed: true, startedFrom: template === undefined ? 'boot' : 'template' };
  }

  async function listHosts(): Promise<readonly HostSeen[]> {
    const names = await readdir(hostsDirectory).catch(() => []);
    return Promise.all(
      names
        .filter((name) => hostName.test(name))
        .map(async (hostId): Promise<HostSeen> => ({
          hostId,
          state: (await isAlive(hostId)) ? 'running' : 'stopped',
        })),
    );
  }

  async function templatesInUse(): Promise<ReadonlySet<string>> {
    const hosts = await listHosts();
    const records = await Promise.all(hosts.map(({ hostId }) => readHostRecord(recordFile(hostId))));
    return new Set(records.map((record) => record?.template).filter((key) => key !== undefined));
  }

  return {
    name: 'qemu',

    async open() {
      await mkdir(hostsDirectory, { recursive: true, mode: 0o711 });
      await mkdir(runDirectory, { recursive: true, mode: 0o755 });
      await network.open();
      await removeTemplateMachine(templateParts);
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
      if (await templates.has(key)) return;
      await makeTemplate(templateParts, plan, { key, directory: templates.directory(key) }, report, signal);
      await templates.removeOthers(plan.planName, key, await templatesInUse());
    },

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
          record.startedFrom === undefined ? newDisk(at, record) : undefined,
        ]);
      }),

    start: (spec) =>
      locked(spec.hostId, async () => {
        const at = placeOfSpec(spec);
        const record = await requireRecord(spec.hostId);
        if (await isAlive(spec.hostId)) {
          if (record.startedFrom !== undefined) return;
          // Somebody was killed while starting it. Nobody has seen it yet.
          await cgroups.kill(spec.hostId);
        }
        await writeHostRecord(at.record, await startMachine(at, record));
      }),

    identify: (spec) =>
      locked(spec.hostId, async () => {
        const at = placeOfSpec(spec);
        await machines.requireAlive(at);
        return createGuestAgent(at.agentSocket).identify(createGuestIdentity(spec.hostId), agentTimeoutMs);
      }),

    connect: (spec) =>
      locked(spec.hostId, async (): Promise<EngineAddress> => {
        const at = placeOfSpec(spec);
        await network.connect(at, spec.publishedPorts, spec.egress);
        return { host: at.hostAddress, port: enginePort };
      }),

    async answers(spec) {
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

    stop: (hostId) =>
      locked(hostId, async () => {
        const record = await readHostRecord(recordFile(hostId));
        if (record === undefined) return;
        const at = place(hostId, record.slot);
        await network.disconnect(at, record.publishedPorts);
        if (await isAlive(hostId)) {
          await createGuestAgent(at.agentSocket)
            .powerOff(agentTimeoutMs)
            .catch(() => false);
          await cgroups.untilEmpty(hostId, powerOffTimeoutMs);
        }
        await cgroups.kill(hostId);
      }),

    destroy: (hostId) =>
      locked(hostId, async () => {
        const record = await readHostRecord(recordFile(hostId));
        await cgroups.kill(hostId);
        await cgroups.remove(hostId);
        if (record !== undefined) {
          const at = place(hostId, record.slot);
          await network.destroy(at, record.publishedPorts);
          await wipeDisk(at.disk);
          await removeRunFiles(at);
        }
        // Last of all: while its folder stands, the host can be found.
        await rm(path.join(hostsDirectory, hostId), { recursive: true, force: true });
      }),

    list: listHosts,

    async memory(hostId) {
      const processes = await cgroups.processes(hostId);
      if (processes.length === 0) return undefined;
      const sizes = await Promise.all(processes.map(proportionalKib));
      return { pssMib: sizes.reduce((sum, size) => sum + size, 0) / 1024 };
    },
  };
}

/** Proportional set size of a process in KiB (proc(5), smaps_rollup); 0 where it has just ended. */
async function proportionalKib(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0);
}
