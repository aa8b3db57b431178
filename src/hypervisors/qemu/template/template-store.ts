import { createHash } from 'node:crypto';
import { mkdir, readdir, rm, stat, type FileHandle, writeFile } from 'node:fs/promises';
import { totalmem } from 'node:os';
import path from 'node:path';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { fileDigest, type GuestImage } from '../image/guest-image.ts';
import type { Digests } from '../integrity/digests.ts';
import { memoryKeyOf, type NodeKey } from '../memory/memory-key.ts';
import { openSealedCopy } from '../memory/sealed-memory.ts';
import type { QemuOptions } from '../options.ts';
import { readTemplateRecord, templateFiles, type TemplateFile } from './template-record.ts';
import { exists } from '../../../lib/exists.ts';
import type { Logger } from '../../../lib/logger.ts';

/** Raise this if templates are made differently: existing ones are then made again. */
const recipeVersion = 2;

/** A template that hosts can be restored from. */
export interface LoadedTemplate {
  readonly key: string;
  readonly disk: string;
  readonly deviceState: string;
  readonly memory: FileHandle;
  /** Physical addresses of kernel secrets (kernel-secrets.ts). */
  readonly kernelSecrets: readonly number[];
  /** Digests of its files by path. */
  readonly digests: ReadonlyMap<string, string>;
}

/** The templates on disk, and which of them are loaded into memory. */
export interface TemplateStore {
  /** Key of a plan's template: a digest of everything that the template is made from. */
  key(planName: string, shape: HostShape): string;
  directory(key: string): string;
  /** Whether the template is on disk and not known to be damaged. */
  has(key: string): Promise<boolean>;
  /** Whether one of its files had a wrong digest; disks of hosts may still be overlays of it. */
  isDamaged(key: string): Promise<boolean>;
  /** The recorded digest of its disk. @throws HypervisorError if it has no record. */
  diskDigest(key: string): Promise<string>;
  /** The template with its memory loaded and all digests verified; undefined if there is no usable one. */
  load(key: string): Promise<LoadedTemplate | undefined>;
  /** Stops using a template until it has been made again. */
  distrust(key: string): void;
  /** Loads small templates ahead; one that is large compared with the node's memory is loaded on first use. */
  preload(): void;
  /** Removes the other templates of a plan, except those that a host's disk is an overlay of. */
  removeOthers(planName: string, key: string, inUse: ReadonlySet<string>): Promise<void>;
  close(): Promise<void>;
}

/** Largest template that is loaded ahead, as a share of the node's memory. */
const preloadShare = 0.05;

export function createTemplateStore(
  options: Pick<QemuOptions, 'stateDirectory' | 'libexecDirectory'>,
  image: GuestImage,
  nodeKey: NodeKey,
  digests: Digests,
  logger: Logger,
): TemplateStore {
  const root = path.join(options.stateDirectory, 'templates');
  const loaded = new Map<string, Promise<LoadedTemplate | undefined>>();
  const distrusted = new Set<string>();
  let closed = false;
  const directory = (key: string) => path.join(root, key);
  const damageMark = (key: string) => path.join(directory(key), 'damaged');
  const isDamaged = (key: string) => exists(damageMark(key));

  const readRecord = (key: string) => readTemplateRecord(directory(key));

  async function loadChecked(key: string): Promise<LoadedTemplate | undefined> {
    const record = await readRecord(key);
    if (record === undefined || (await isDamaged(key))) return undefined;
    const file = (name: TemplateFile) => path.join(directory(key), name);
    let memory: FileHandle | undefined;
    try {
      memory = await openSealedCopy(options.libexecDirectory, file('memory'));
      // Verify the sealed copy, not the file that it was copied from.
      await requireSame(
        key,
        file('memory'),
        record.files.memory,
        await fileDigest(`/proc/self/fd/${memory.fd}`),
      );
      const template: LoadedTemplate = {
        key,
        disk: file('disk.qcow2'),
        deviceState: file('device-state'),
        memory,
        kernelSecrets: record.kernelSecrets ?? [],
        digests: new Map(templateFiles.map((name) => [file(name), record.files[name]])),
      };
      await requireSound(template);
      return template;
    } catch (error) {
      await memory?.close();
      refuse(key, error);
      return undefined;
    }
  }

  /** The memory is sealed; the other files may have changed since they were last verified. */
  async function requireSound({ key, disk, deviceState, digests: expected }: LoadedTemplate): Promise<void> {
    for (const file of [disk, deviceState]) {
      await requireSame(key, file, expected.get(file) ?? '', await digests.of(file));
    }
  }

  async function requireSame(key: string, file: string, expected: string, actual: string): Promise<void> {
    if (actual === expected) return;
    const problem = `The template is damaged: ${file} has the digest ${actual}, not ${expected}`;
    // The next start makes it again.
    await writeFile(damageMark(key), `${problem}\n`);
    throw new HypervisorError(problem);
  }

  function refuse(key: string, error: unknown): void {
    distrusted.add(key);
    logger.error(
      { template: key, err: error },
      'A template is unusable; hosts of its plan boot cold until it has been made again',
    );
  }

  const load = async (key: string) => {
    if (closed || distrusted.has(key)) return undefined;
    let loading = loaded.get(key);
    if (loading === undefined) {
      loading = loadChecked(key);
      loaded.set(key, loading);
    }
    const template = await loading;
    if (template === undefined) {
      loaded.delete(key);
      return undefined;
    }
    try {
      await requireSound(template);
      return template;
    } catch (error) {
      refuse(key, error);
      return undefined;
    }
  };

  return {
    directory,
    load,
    key(planName, shape) {
      const sources = {
        recipeVersion,
        planName,
        image: image.digest,
        commandLine: image.commandLine,
        shape,
        memory: memoryKeyOf(nodeKey, shape),
      };
      return createHash('sha256').update(JSON.stringify(sources)).digest('hex');
    },
    isDamaged,
    async diskDigest(key) {
      const record = await readRecord(key);
      if (record === undefined) throw new HypervisorError(`The template ${directory(key)} has no record`);
      return record.files['disk.qcow2'];
    },
    has: async (key) =>
      !distrusted.has(key) && !(await isDamaged(key)) && (await readRecord(key)) !== undefined,
    distrust(key) {
      distrusted.add(key);
    },
    preload() {
      const small = async () => {
        for (const key of await readdir(root).catch(() => [])) {
          const record = await readRecord(key);
          if (record?.image !== image.digest) continue;
          const { size } = await stat(path.join(directory(key), 'memory'));
          if (size <= totalmem() * preloadShare) await load(key);
        }
      };
      small().catch((error: unknown) => {
        logger.warn({ err: error }, 'Loading templates ahead failed; each is loaded on first use');
      });
    },
    async removeOthers(planName, key, inUse) {
      for (const name of await readdir(root).catch(() => [])) {
        if (name === key || inUse.has(name)) continue;
        const record = await readRecord(name);
        if (record?.planName === planName) await rm(directory(name), { recursive: true, force: true });
      }
    },
    async close() {
      closed = true;
      for (const loading of loaded.values()) await (await loading)?.memory.close();
      loaded.clear();
    },
  };
}

/** An empty folder to make a template in, on the same file system; removes what a killed attempt has left. */
export async function templateBuildDirectory(stateDirectory: string): Promise<string> {
  const directory = path.join(stateDirectory, 'templates', 'making');
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true, mode: 0o755 });
  return directory;
}
