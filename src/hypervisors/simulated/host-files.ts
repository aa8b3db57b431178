import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { HostSpec, RegistrySettings } from '../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import type { StartedFrom } from '../../core/hypervisor/lifecycle.ts';
import type { TemplateSpec } from '../../core/hypervisor/templates.ts';
import { writeFileAtomically } from '../../lib/write-file-atomically.ts';

/** A simulated machine: what would be a running QEMU. */
export interface SimulatedVm {
  /** Port on 127.0.0.1 at which the process that runs it serves its engine. */
  readonly port: number;
  readonly startedFrom: StartedFrom;
  /** When its guest can be spoken to, in milliseconds since the epoch. */
  readonly guestReadyAt: number;
  /** Restored ahead, and its guest has not run. */
  readonly held: boolean;
  /** What was last done to its processors. */
  readonly power: 'running' | 'paused' | 'suspended';
  readonly identified: boolean;
  /** What its engine was told since it started. */
  readonly registries: RegistrySettings;
  readonly connected: boolean;
}

/** A host's state file. The file is the host: whoever serves it reads it for every request. */
export interface SimulatedHost {
  readonly spec: HostSpec;
  /** Undefined while no machine runs. */
  readonly machine: SimulatedVm | undefined;
}

/** A host's disk: what outlives its machine. */
export interface SimulatedDisk {
  /** Whether a machine has ever run from it. */
  readonly hasRun: boolean;
  /** Names of its engine's volumes. */
  readonly volumes: readonly string[];
}

/** The files of all simulated hosts and templates under one state directory. */
export type HostFiles = ReturnType<typeof openHostFiles>;

/**
 * Keeps, under `<stateDirectory>/simulated`, `hosts/<hostId>/host.json` and `disk.json`, and
 * `templates/<plan>.json`. Files are replaced whole, so that a kill leaves the old one or the new one.
 */
export function openHostFiles(stateDirectory: string) {
  const hosts = path.join(stateDirectory, 'simulated', 'hosts');
  const templates = path.join(stateDirectory, 'simulated', 'templates');
  const hostFile = (hostId: string) => path.join(hosts, hostId, 'host.json');
  const diskFile = (hostId: string) => path.join(hosts, hostId, 'disk.json');
  const quarantineMark = (hostId: string) => path.join(hosts, hostId, 'quarantined');
  const templateFile = (planName: string) => path.join(templates, `${encodeURIComponent(planName)}.json`);

  return {
    async create() {
      await mkdir(hosts, { recursive: true, mode: 0o700 });
      await mkdir(templates, { recursive: true, mode: 0o700 });
    },

    /** Undefined where there is no such host, or only a half-made one, as one whose file is damaged is too. */
    async readHost(hostId: string): Promise<SimulatedHost | undefined> {
      return parse(await readText(hostFile(hostId))) as SimulatedHost | undefined;
    },

    async writeHost(host: SimulatedHost) {
      await writeJson(hostFile(host.spec.hostId), host);
    },

    /** @throws HypervisorError where there is no such host. */
    async changeHost(hostId: string, change: (host: SimulatedHost) => SimulatedHost) {
      const host = await this.readHost(hostId);
      if (host === undefined) throw new HypervisorError(`there is no simulated host ${hostId}`);
      await this.writeHost(change(host));
    },

    async readDisk(hostId: string): Promise<SimulatedDisk> {
      return (await readJson<SimulatedDisk>(diskFile(hostId))) ?? { hasRun: false, volumes: [] };
    },

    async writeDisk(hostId: string, disk: SimulatedDisk) {
      await writeJson(diskFile(hostId), disk);
    },

    async createHostDirectory(hostId: string) {
      await mkdir(path.join(hosts, hostId), { recursive: true, mode: 0o700 });
    },

    async removeHost(hostId: string) {
      await rm(path.join(hosts, hostId), { recursive: true, force: true });
    },

    async quarantine(hostId: string) {
      await writeFile(quarantineMark(hostId), '');
    },

    async release(hostId: string) {
      await rm(quarantineMark(hostId), { force: true });
    },

    async isQuarantined(hostId: string): Promise<boolean> {
      return (await readText(quarantineMark(hostId))) !== undefined;
    },

    /** Half-made hosts included. */
    async hostIds(): Promise<string[]> {
      return (await ifThere(() => readdir(hosts))) ?? [];
    },

    readTemplate: (planName: string) => readJson<TemplateSpec>(templateFile(planName)),

    async writeTemplate(plan: TemplateSpec) {
      await writeJson(templateFile(plan.planName), plan);
    },
  };
}

async function readJson<T>(file: string): Promise<T | undefined> {
  const text = await readText(file);
  const value = parse(text);
  if (text !== undefined && value === undefined) throw new HypervisorError(`${file} is damaged: remove it`);
  return value as T | undefined;
}

/** Undefined where the text is no JSON. */
function parse(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

const readText = (file: string) => ifThere(() => readFile(file, 'utf8'));

async function writeJson(file: string, value: SimulatedHost | SimulatedDisk | TemplateSpec) {
  try {
    await writeFileAtomically(file, JSON.stringify(value), { durable: false });
  } catch (cause) {
    throw new HypervisorError(`${file} can't be written: ${String(cause)}`, { cause });
  }
}

async function ifThere<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
