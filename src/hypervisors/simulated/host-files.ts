import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import type { HostShape, HostSpec, RegistrySettings } from '../../core/hypervisor/host-spec.ts';
import { HostDisputedError } from '../../core/hypervisor/host-disputed-error.ts';
import { HypervisorError } from '../../core/hypervisor/hypervisor-error.ts';
import { isUuid } from '../../lib/uuid.ts';
import type { StartedFrom } from '../../core/hypervisor/lifecycle.ts';
import { writeFileAtomically } from '../../lib/write-file-atomically.ts';

/** What would be a running QEMU. */
export interface SimulatedVm {
  /** Port on 127.0.0.1 at which its engine is served. */
  readonly port: number;
  readonly startedFrom: StartedFrom;
  /** When its guest begins to answer, in milliseconds since the epoch. */
  readonly guestReadyAt: number;
  /** True while it waits in the pool: no tenant has used it. */
  readonly parked: boolean;
  readonly power: 'running' | 'paused' | 'suspended';
  readonly identified: boolean;
  /** Registries that its engine was given since it started. */
  readonly registries: RegistrySettings;
  readonly connected: boolean;
  /** Whether it was halted since it last ran. */
  readonly halted?: boolean;
  /** What its guest uses, if `grow` has changed it; undefined: the shape of the host's spec. */
  readonly shape?: HostShape;
}

/** `host.json`. The file is the host: the process that serves its engine reads it for every request. */
export interface SimulatedHost {
  readonly spec: HostSpec;
  /** Undefined while no VM runs. */
  readonly vm: SimulatedVm | undefined;
}

/** What the guest uses; undefined if the host has no VM. */
export const shapeInUse = ({ spec, vm }: SimulatedHost): HostShape | undefined =>
  vm && (vm.shape ?? spec.shape);

/** `disk.json`: what outlives the VM. */
export interface SimulatedDisk {
  /** Whether a VM has ever run from it. */
  readonly hasRun: boolean;
  /** Names of its engine's volumes. */
  readonly volumes: readonly string[];
  /** Slot of the host, in case its `host.json` is unreadable; undefined if a former version has made it. */
  readonly slot?: number;
  /** When the host's memory was last lost (ISO 8601); undefined: never. */
  readonly memoryLostAt?: string;
}

/** `template.json`. */
export interface SimulatedTemplate {
  readonly imageVersion: string;
}

/** The files of all simulated hosts and the template under one state directory. */
export type HostFiles = ReturnType<typeof openHostFiles>;

/**
 * Below `<stateDirectory>/simulated`: `hosts/<hostId>/host.json` and `disk.json`, and `template.json`. Files are
 * replaced as a whole, so that a kill leaves either the old or the new one.
 */
export function openHostFiles(stateDirectory: string) {
  const hosts = path.join(stateDirectory, 'simulated', 'hosts');
  const templateFile = path.join(stateDirectory, 'simulated', 'template.json');
  const hostFile = (hostId: string) => path.join(hosts, hostId, 'host.json');
  const diskFile = (hostId: string) => path.join(hosts, hostId, 'disk.json');
  const memoryFile = (hostId: string) => path.join(hosts, hostId, 'memory.json');
  const quarantineMark = (hostId: string) => path.join(hosts, hostId, 'quarantined');

  return {
    async create() {
      await mkdir(hosts, { recursive: true, mode: 0o700 });
    },

    /**
     * Undefined if there is no such host, or only a half-made one without a file.
     * @throws HostDisputedError if the file is empty, damaged, or of another host.
     */
    async readHost(hostId: string): Promise<SimulatedHost | undefined> {
      const text = await readText(hostFile(hostId));
      if (text === undefined) return undefined;
      const host = parse(text) as Partial<SimulatedHost> | FormerHost | undefined;
      if (host?.spec?.hostId !== hostId) {
        throw new HostDisputedError(
          `${hostFile(hostId)} is unreadable: it is empty, damaged, or the record of another host`,
        );
      }
      return 'machine' in host ? fromFormer(host) : { spec: host.spec, vm: host.vm };
    },

    async writeHost(host: SimulatedHost, durability?: { readonly durable: true }) {
      await writeJson(hostFile(host.spec.hostId), host, durability);
    },

    /** @throws HypervisorError if there is no such host. */
    async changeHost(
      hostId: string,
      change: (host: SimulatedHost) => SimulatedHost,
      durability?: { readonly durable: true },
    ) {
      const host = await this.readHost(hostId);
      if (host === undefined) throw new HypervisorError(`there is no simulated host ${hostId}`);
      await this.writeHost(change(host), durability);
    },

    /** The slot of a host whose `host.json` is unreadable; undefined if `disk.json` does not tell it either. */
    async slotByDisk(hostId: string): Promise<number | undefined> {
      return (parse((await readText(diskFile(hostId))) ?? '') as SimulatedDisk | undefined)?.slot;
    },

    async readDisk(hostId: string): Promise<SimulatedDisk> {
      return (await readJson<SimulatedDisk>(diskFile(hostId))) ?? { hasRun: false, volumes: [] };
    },

    async writeDisk(hostId: string, disk: SimulatedDisk) {
      await writeJson(diskFile(hostId), disk);
    },

    /** Represents the memory of a suspended host. */
    async writeMemory(hostId: string) {
      await writeJson(memoryFile(hostId), { hostId });
    },

    /** False if it is missing or damaged. */
    async hasMemory(hostId: string): Promise<boolean> {
      const memory = parse(await readText(memoryFile(hostId))) as { hostId?: string } | null | undefined;
      return memory?.hostId === hostId;
    },

    async createHostDirectory(hostId: string) {
      await mkdir(path.join(hosts, hostId), { recursive: true, mode: 0o700 });
    },

    async removeHost(hostId: string) {
      await rm(path.join(hosts, hostId), { recursive: true, force: true });
    },

    async quarantine(hostId: string) {
      await writeFileAtomically(quarantineMark(hostId), '', { durable: false });
    },

    async release(hostId: string) {
      await rm(quarantineMark(hostId), { force: true });
    },

    async isQuarantined(hostId: string): Promise<boolean> {
      return (await readText(quarantineMark(hostId))) !== undefined;
    },

    /** Half-made hosts included. */
    async hostIds(): Promise<string[]> {
      return ((await ifThere(() => readdir(hosts))) ?? []).filter((name) => isUuid(name));
    },

    readTemplate: () => readJson<SimulatedTemplate>(templateFile),

    async writeTemplate(template: SimulatedTemplate) {
      await writeJson(templateFile, template);
    },
  };
}

/** As Berth wrote `host.json` before its fields got their present names. */
interface FormerHost {
  readonly spec: HostSpec;
  readonly machine: Omit<SimulatedVm, 'parked' | 'power'> & {
    readonly held: boolean;
    readonly power: SimulatedVm['power'] | 'on';
  };
}

function fromFormer({ spec, machine: { held, power, ...vm } }: FormerHost): SimulatedHost {
  return { spec, vm: { ...vm, parked: held, power: power === 'on' ? 'running' : power } };
}

async function readJson<T>(file: string): Promise<T | undefined> {
  const text = await readText(file);
  const value = parse(text);
  if (text !== undefined && value === undefined) throw new HypervisorError(`${file} is damaged: remove it`);
  return value as T | undefined;
}

/** Undefined if the text is not JSON. */
function parse(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

const readText = (file: string) => ifThere(() => readFile(file, 'utf8'));

/** @param durable by default, the file survives a kill only: a power cut takes all simulated hosts anyway. */
async function writeJson(
  file: string,
  value: SimulatedHost | SimulatedDisk | SimulatedTemplate | { readonly hostId: string },
  { durable }: { readonly durable: boolean } = { durable: false },
) {
  try {
    await writeFileAtomically(file, JSON.stringify(value), { durable });
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
