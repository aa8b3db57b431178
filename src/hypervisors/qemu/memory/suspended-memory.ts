import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Ajv } from 'ajv';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { exists } from '../../../lib/exists.ts';
import {
  publishFile,
  renameDurably,
  syncFolder,
  writeFileAtomically,
} from '../../../lib/write-file-atomically.ts';
import { wipeDisk } from '../disk/disks.ts';
import { fileDigest } from '../image/guest-image.ts';
import type { HostLayout } from '../layout.ts';
import type { TemplateMemory } from '../template/template-record.ts';
import { keyDifference, type MemoryKey } from './memory-key.ts';

/** A tenant's memory: readable by root only, and wiped before it is removed. */
const imageOf = (layout: HostLayout) => path.join(layout.directory, 'memory');
const attemptOf = (layout: HostLayout) => `${imageOf(layout)}.new`;
const unusableOf = (layout: HostLayout) => `${imageOf(layout)}.unusable`;
const recordOf = (layout: HostLayout) => `${imageOf(layout)}.json`;

/** `memory.json`, beside the memory. */
interface MemoryRecord {
  readonly key: MemoryKey;
  /** SHA-256 of the memory. */
  readonly digest: string;
  /** How often a VM could not load it, for a reason that may pass. */
  readonly failedLoads: number;
  /** The memory that it is the difference from; undefined: empty memory. */
  readonly template?: TemplateMemory | undefined;
}

const text = { type: 'string' };
const isMemoryRecord = new Ajv().compile<MemoryRecord>({
  type: 'object',
  required: ['key', 'digest', 'failedLoads'],
  properties: {
    key: {
      type: 'object',
      required: ['accelerator', 'qemu', 'type', 'arguments'],
      properties: {
        ...{ accelerator: text, qemu: text, type: text, arguments: text },
        ...{ processor: text, kernel: text },
      },
    },
    digest: text,
    failedLoads: { type: 'integer' },
    template: { type: 'object', required: ['key', 'digest'], properties: { key: text, digest: text } },
  },
});

/** What a VM loads. */
export interface SavedMemory {
  readonly image: string;
  /** The memory that the VM needs before; undefined: empty memory. */
  readonly template: TemplateMemory | undefined;
}

/** The files of a suspended host's memory. */
export interface SuspendedMemory {
  /** The memory itself, for QEMU to load. */
  readonly image: string;
  /** A file for memory that is being saved. */
  readonly attempt: string;
  exists(): Promise<boolean>;
  /** Records what the saved attempt needs, and makes it the host's memory; survives a power cut. */
  keep(key: MemoryKey, template: TemplateMemory | undefined): Promise<void>;
  /** The template's memory that it is the difference from; undefined: empty memory. */
  template(): Promise<TemplateMemory | undefined>;
  /** Why a VM with this key can't load the memory, as far as its record tells; undefined if it can. */
  obstacle(key: MemoryKey): Promise<string | undefined>;
  /** Why the memory is not what was saved; undefined if it is. Reads all of it. */
  damage(): Promise<string | undefined>;
  /** Records one more failed load. @returns how many there were. */
  countFailedLoad(): Promise<number>;
  /** Never loads this memory again, but leaves it on disk until the host has started without it. */
  setAside(): Promise<void>;
  /** Wipes memory that was set aside. */
  wipeUnusable(): Promise<void>;
  /** Wipes all of it, so that it can't come back after a power cut. */
  wipe(): Promise<void>;
}

export function suspendedMemory(layout: HostLayout): SuspendedMemory {
  const [image, attempt] = [imageOf(layout), attemptOf(layout)];

  async function readRecord(): Promise<MemoryRecord | undefined> {
    const found: unknown = await readFile(recordOf(layout), 'utf8')
      .then((json) => JSON.parse(json) as unknown)
      .catch(() => undefined);
    return isMemoryRecord(found) ? found : undefined;
  }

  const writeRecord = (record: MemoryRecord) =>
    writeFileAtomically(recordOf(layout), `${JSON.stringify(record, undefined, 2)}\n`);

  return {
    image,
    attempt,
    exists: () => exists(image),

    async keep(key, template) {
      await writeRecord({ key, digest: await fileDigest(attempt), failedLoads: 0, template });
      await publishFile(attempt, image).catch((cause: unknown) => {
        throw new HypervisorError(`${image} could not be written to the disk`, { cause });
      });
    },

    template: async () => (await readRecord())?.template,

    async obstacle(key) {
      const record = await readRecord();
      if (record === undefined)
        return `${recordOf(layout)}, which says what it needs, is missing or unreadable`;
      const difference = keyDifference(record.key, key);
      return difference === undefined ? undefined : `it needs another node or QEMU: ${difference}`;
    },

    async damage() {
      const expected = (await readRecord())?.digest;
      try {
        const actual = await fileDigest(image);
        return actual === expected ? undefined : `${image} is damaged: its digest is not the recorded one`;
      } catch (error) {
        return `${image} can't be read: ${String(error)}`;
      }
    },

    async countFailedLoad() {
      const record = await readRecord();
      if (record === undefined) return Number.POSITIVE_INFINITY;
      const failedLoads = record.failedLoads + 1;
      await writeRecord({ ...record, failedLoads });
      return failedLoads;
    },

    async setAside() {
      await wipeDisk(unusableOf(layout));
      await renameDurably(image, unusableOf(layout));
    },

    wipeUnusable: () => wipeDisk(unusableOf(layout)),

    async wipe() {
      // The usual case is a paused host, whose tenant waits.
      const wasThere = await exists(image);
      for (const file of [image, attempt, unusableOf(layout), recordOf(layout)]) await wipeDisk(file);
      if (wasThere) await syncFolder(layout.directory);
    },
  };
}
