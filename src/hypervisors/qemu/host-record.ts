import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { HostShape, HostSpec, PortBlock } from '../../core/hypervisor/host-spec.ts';
import type { StartedFrom } from '../../core/hypervisor/lifecycle.ts';
import { Ajv } from 'ajv';
import { HostDisputedError } from '../../core/hypervisor/host-disputed-error.ts';
import type { VmBounds } from './options.ts';
import { syncFolder, writeFileAtomically } from '../../lib/write-file-atomically.ts';

/**
 * `host.json`: written before anything of a host is made, so that everything of it can be found and removed
 * without Postgres.
 */
export interface HostRecord {
  readonly hostId: string;
  readonly slot: number;
  /** Id of the instance that the host belongs to, once it has been started for one. It never changes again. */
  readonly owner?: string | undefined;
  readonly planName: string;
  readonly shape: HostShape;
  /** Of the VM; undefined: it has never run, or a former version of Berth has started it, with its shape and no room. */
  readonly bounds?: VmBounds | undefined;
  /**
   * The guest has not been seen to use all CPUs, memory and disk of the shape yet; undefined: it has. `since` (ISO 8601) limits
   * how long an update waits for that; undefined: the host was restored from the template, and nobody uses it yet.
   * `isAdded`: nothing is left to do but to wait for the guest.
   */
  readonly growing?: { readonly since?: string; readonly isAdded: boolean } | undefined;
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
  /** When the memory of the suspended host last turned out to be unusable (ISO 8601), and why; undefined: never. */
  readonly memoryLost?: { readonly at: string; readonly why: string };
}

/** Fields that Berth wrote before they got their present names. */
interface FormerFields {
  readonly held?: boolean;
  readonly power: HostRecord['power'] | 'on';
}

export const boundsOf = ({ bounds, shape }: HostRecord): VmBounds => bounds ?? { start: shape, room: shape };

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

const whole = { type: 'integer', minimum: 0 };
/** The fields that Berth finds and starts a host by; of a present or a former version. */
const isRecord = new Ajv().compile<Omit<HostRecord, 'power'> & FormerFields>({
  type: 'object',
  required: ['hostId', 'slot', 'planName', 'shape', 'image', 'power'],
  properties: {
    hostId: { type: 'string' },
    slot: { type: 'integer', minimum: 1 },
    owner: { type: 'string' },
    planName: { type: 'string' },
    shape: {
      type: 'object',
      required: ['vcpus', 'memoryMib', 'diskGib'],
      properties: { vcpus: whole, memoryMib: whole, diskGib: whole },
    },
    image: { type: 'string' },
    power: { enum: ['running', 'on', 'paused', 'suspended'] },
  },
});

/**
 * Reads the record of the host whose folder the file is in. A record of a former version is read as a present one.
 * @returns undefined if the file does not exist.
 * @throws HostDisputedError if it is empty, damaged, or of another host.
 */
export async function readHostRecord(file: string): Promise<HostRecord | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  const found = parse(text);
  if (!isRecord(found) || found.hostId !== path.basename(path.dirname(file))) {
    throw new HostDisputedError(`${file} is unreadable: it is empty, damaged, or the record of another host`);
  }
  const { held, power, ...record } = found;
  return { ...record, parked: held ?? record.parked, power: power === 'on' ? 'running' : power };
}

/** Undefined if the text is not JSON. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @param durable by default, a power cut may leave the previous record, but never an empty file. */
export async function writeHostRecord(
  file: string,
  record: HostRecord,
  durable: true | 'content' = 'content',
): Promise<void> {
  const folder = path.dirname(file);
  // Mode 711: QEMU's user can reach its disk in this folder, but can't list it.
  const made = await mkdir(folder, { recursive: true, mode: 0o711 });
  await writeFileAtomically(file, `${JSON.stringify(record, undefined, 2)}\n`, { durable });
  if (made !== undefined) await syncFolder(path.dirname(folder));
}
