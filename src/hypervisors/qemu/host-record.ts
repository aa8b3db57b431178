import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { HostShape, HostSpec, PortBlock } from '../../core/hypervisor/host-spec.ts';
import type { StartedFrom } from '../../core/hypervisor/lifecycle.ts';

/**
 * `host.json`: written before anything of a host is made, so that everything of it can be found and removed
 * with no help from Postgres.
 */
export interface HostRecord {
  readonly hostId: string;
  readonly slot: number;
  readonly planName: string;
  readonly shape: HostShape;
  /** Left out while they change: then only the firewall itself can tell. */
  readonly publishedPorts?: PortBlock | undefined;
  /** Size of the empty disk below its own, in GiB; left out: that of its shape, which can grow. */
  readonly baseDiskGib?: number;
  /** Digest of the guest image that the host boots. */
  readonly image: string;
  /** Key of the template that its disk is an overlay of; undefined: of an empty disk. */
  readonly template: string | undefined;
  /** False until a machine has been started with the disk: a template's memory fits an untouched overlay only. */
  readonly diskIsUsed: boolean;
  /** How the machine came to run; undefined until it first ran. */
  readonly startedFrom: StartedFrom | undefined;
  /** Whether the machine that runs may have been told of registries; left out: no. */
  readonly hasRegistries?: boolean;
  /** Containers that ran when the machine was stopped, and are to run again; left out: none. */
  readonly containers?: readonly string[];
  /** True while the machine is held for the pool: nobody has used it, and nothing is lost with it. */
  readonly held: boolean;
  /** What was last done to the machine's processors. */
  readonly power: 'running' | 'paused' | 'suspended';
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
    held: false,
    power: 'running',
  };
}

export async function readHostRecord(file: string): Promise<HostRecord | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as HostRecord;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

export async function writeHostRecord(file: string, record: HostRecord): Promise<void> {
  // QEMU's user passes through to its disk, and can list nothing.
  await mkdir(path.dirname(file), { recursive: true, mode: 0o711 });
  const attempt = `${file}.new`;
  await writeFile(attempt, `${JSON.stringify(record, undefined, 2)}\n`, { mode: 0o600 });
  await rename(attempt, file);
}
