import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { HostShape, HostSpec, PortBlock } from '../../core/hypervisor/host-spec.ts';
import type { StartedFrom } from '../../core/hypervisor/lifecycle.ts';
import { writeFileAtomically } from '../../lib/write-file-atomically.ts';

/**
 * `host.json`: written before anything of a host is made, so that everything of it can be found and removed
 * without Postgres.
 */
export interface HostRecord {
  readonly hostId: string;
  readonly slot: number;
  readonly planName: string;
  readonly shape: HostShape;
  /** Undefined while they change: then only the firewall knows them. */
  readonly publishedPorts?: PortBlock | undefined;
  /** Size in GiB of the empty disk below the host's overlay; undefined: as in `shape` (the disk has never grown). */
  readonly baseDiskGib?: number;
  /** Digest of the guest image that the host boots. */
  readonly image: string;
  /** Key of the template whose disk is below the host's overlay; undefined: an empty disk is. */
  readonly template: string | undefined;
  /** True once a VM was started with the disk: a template's memory only fits an untouched overlay. */
  readonly diskIsUsed: boolean;
  /** Undefined until the VM first ran. */
  readonly startedFrom: StartedFrom | undefined;
  /** Whether the running VM may have been given registries; undefined: no. */
  readonly hasRegistries?: boolean;
  /** Ids of the containers that ran when the VM was stopped and are to be started again; undefined: none. */
  readonly containers?: readonly string[];
  /** True while the VM waits in the pool: no tenant has used it, and it can be made again from the template. */
  readonly parked: boolean;
  /** The last power change that was completed. */
  readonly power: 'running' | 'paused' | 'suspended';
}

/** Fields that Berth wrote before they got their present names. */
interface FormerFields {
  readonly held?: boolean;
  readonly power: HostRecord['power'] | 'on';
}

export function newHostRecord(spec: HostSpec, image: string): HostRecord {
  return {
    hostId: spec.hostId,
    slot: spec.slot,
    planName: spec.planName,
    shape: spec.shape,
    publishedPorts: spec.publishedPorts,
    image,
    template: undefined,
    diskIsUsed: false,
    startedFrom: undefined,
    parked: false,
    power: 'running',
  };
}

/** @returns undefined if the file does not exist. A record of a former version is read as a present one. */
export async function readHostRecord(file: string): Promise<HostRecord | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const { held, power, ...record } = JSON.parse(text) as Omit<HostRecord, 'power'> & FormerFields;
  return { ...record, parked: held ?? record.parked, power: power === 'on' ? 'running' : power };
}

export async function writeHostRecord(file: string, record: HostRecord): Promise<void> {
  // Mode 711: QEMU's user can reach its disk in this folder, but can't list it.
  await mkdir(path.dirname(file), { recursive: true, mode: 0o711 });
  // Not synced, so that a create does not wait for the disk: after a power cut it may be the previous record.
  await writeFileAtomically(file, `${JSON.stringify(record, undefined, 2)}\n`, { durable: false });
}
