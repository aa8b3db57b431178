import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { totalmem } from 'node:os';
import path from 'node:path';
import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Logger } from '../../../lib/logger.ts';
import { exists } from '../../../lib/exists.ts';
import { vmArguments } from '../launch/arguments.ts';
import type { Digests } from '../integrity/digests.ts';
import { fileDigest, type GuestImage } from '../image/guest-image.ts';
import type { QemuOptions } from '../options.ts';
import { openSealedCopy } from '../memory/sealed-memory.ts';

/** Raised when a template is made in another way: what is on disk is then made anew. */
const recipeVersion = 1;

/** `template.json` */
export interface TemplateRecord {
  readonly key: string;
  readonly planName: string;
  readonly image: string;
  readonly madeAt: string;
  /** SHA-256 of each file: the three belong together. */
  readonly files: Readonly<Record<TemplateFile, string>>;
}

export type TemplateFile = 'memory' | 'device-state' | 'disk.qcow2';
export const templateFiles: readonly TemplateFile[] = ['memory', 'device-state', 'disk.qcow2'];

/** What a template in this folder was made of; undefined where that is not on record. */
export async function readTemplateRecord(directory: string): Promise<TemplateRecord | undefined> {
  try {
    return JSON.parse(await readFile(path.join(directory, 'template.json'), 'utf8')) as TemplateRecord;
  } catch {
    return undefined;
  }
}

/** A template that hosts can be restored from. */
export interface LoadedTemplate {
  readonly key: string;
  readonly disk: string;
  readonly deviceState: string;
  readonly memory: FileHandle;
  /** The digests of its files, by their paths. */
  readonly digests: ReadonlyMap<string, string>;
}

/** The templates on disk, and those of them that are in memory. */
export interface TemplateStore {
  /** Names the template of a plan by everything that it is made from. */
  key(planName: string, shape: HostShape): string;
  directory(key: string): string;
  /** Whether the template is on disk, and not known to be damaged. */
  has(key: string): Promise<boolean>;
  /** Whether a file of it was found to have another digest; hosts' disks may need it all the same. */
  isDamaged(key: string): Promise<boolean>;
  /** The digest that its disk was made with. @throws HypervisorError where that is not on record. */
  diskDigest(key: string): Promise<string>;
  /** The template with its memory loaded and all digests checked; undefined where there is none to use. */
  load(key: string): Promise<LoadedTemplate | undefined>;
  /** Makes no further use of a template, until it has been made anew. */
  distrust(key: string): void;
  /** Loads ahead what is small beside this machine's memory; a larger template is loaded when it is first used. */
  preload(): void;
  /** Removes the other templates of a plan, except those that a host's disk is an overlay of. */
  removeOthers(planName: string, key: string, inUse: ReadonlySet<string>): Promise<void>;
  close(): Promise<void>;
}

/** The share of the machine's memory that templates may take up before anybody asks for them. */
const preloadShare = 0.05;

export function createTemplateStore(
  options: Pick<QemuOptions, 'stateDirectory' | 'libexecDirectory' | 'accelerator'>,
  image: GuestImage,
  qemuVersion: string,
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
      // What was sealed is checked, not what it was copied from.
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

  /** Its memory is sealed; the other files may have been altered since they were last looked at. */
  async function requireSound({ key, disk, deviceState, digests: expected }: LoadedTemplate): Promise<void> {
    for (const file of [disk, deviceState]) {
      await requireSame(key, file, expected.get(file) ?? '', await digests.of(file));
    }
  }

  async function requireSame(key: string, file: string, expected: string, actual: string): Promise<void> {
    if (actual === expected) return;
    const problem = `The template is damaged: ${file} has the digest ${actual}, not ${expected}`;
    // So that the next start makes it anew.
    await writeFile(damageMark(key), `${problem}\n`);
    throw new HypervisorError(problem);
  }

  function refuse(key: string, error: unknown): void {
    distrusted.add(key);
    logger.error(
      { template: key, err: error },
      'A template can not be used; hosts of its plan boot cold until it is made anew',
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
      const parts = {
        recipeVersion,
        planName,
        image: image.digest,
        commandLine: image.commandLine,
        qemuVersion,
        shape,
        machine: vmArguments(options.accelerator, shape),
      };
      return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
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
        logger.warn({ err: error }, 'Templates could not be loaded ahead');
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

/** An empty folder to make a template in, beside its place; what a killed attempt has left is removed. */
export async function templateWorkshop(stateDirectory: string): Promise<string> {
  const directory = path.join(stateDirectory, 'templates', 'making');
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true, mode: 0o755 });
  return directory;
}
