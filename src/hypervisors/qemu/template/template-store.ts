import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import type { HostSpec } from '../../../core/hypervisor/host-spec.ts';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { CurrentImage } from '../image/current-image.ts';
import { fileDigest, type GuestImage } from '../image/guest-image.ts';
import type { Digests } from '../integrity/digests.ts';
import { LoadFailedError } from '../launch/load-failed-error.ts';
import type { NodeKey } from '../memory/memory-key.ts';
import { openSealedCopy } from '../memory/sealed-memory.ts';
import type { QemuOptions } from '../options.ts';
import { createRestoreFailures } from './restore-failures.ts';
import { fitsTemplate, templateKeys } from './template-keys.ts';
import {
  readTemplateRecord,
  templateFiles,
  type TemplateFile,
  type TemplateMemory,
  type TemplateRecord,
} from './template-record.ts';
import { errorMessage } from '../../../lib/error-message.ts';
import { exists } from '../../../lib/exists.ts';
import { writeFileAtomically } from '../../../lib/write-file-atomically.ts';
import type { Logger } from '../../../lib/logger.ts';

/** A template that hosts can be restored from. */
export interface LoadedTemplate {
  readonly key: string;
  readonly disk: string;
  readonly deviceState: string;
  readonly memory: FileHandle;
  /** SHA-256. */
  readonly memoryDigest: string;
  /** Physical addresses of kernel secrets (kernel-secrets.ts). */
  readonly kernelSecrets: readonly number[];
  /** Digests of its files by path. */
  readonly digests: ReadonlyMap<string, string>;
}

/** The templates on disk, and which of them are loaded into memory. */
export interface TemplateStore {
  /**
   * Key of an image's template: a digest of everything that the template is made from, and of how many templates with
   * the same sources were bad. Those stay in their folders, since disks of hosts are overlays of them.
   */
  key(image: GuestImage): string;
  /**
   * The key for a new host; undefined if it has to boot cold: its plan says so, or it is smaller than the template.
   * @throws HypervisorError while no image is installed.
   */
  keyFor(host: Pick<HostSpec, 'planName' | 'shape'>): string | undefined;
  /** Keys of bad templates with the same sources. */
  badKeys(image: GuestImage): readonly string[];
  directory(key: string): string;
  /** Whether the template is on disk and not known to be bad. */
  isMade(key: string): Promise<boolean>;
  /** Whether hosts are restored from it now: it is made, and no restore has failed lately. */
  has(key: string): Promise<boolean>;
  /** The recorded digest of its disk. @throws HypervisorError if it has no record. */
  diskDigest(key: string): Promise<string>;
  /** The template with its memory loaded and all digests verified; undefined if there is no usable one. */
  load(key: string): Promise<LoadedTemplate | undefined>;
  /**
   * The template with this memory, for a VM whose saved memory is the difference from it; also while no host is restored from
   * it because a restore has failed.
   * @throws LoadFailedError which is refused if the template is gone, or not sound any more.
   * @throws HypervisorError if it could not be loaded for a reason that may pass.
   */
  require(memory: TemplateMemory): Promise<LoadedTemplate>;
  /** A host was restored from it. */
  restored(key: string): void;
  /** A restore from it has failed: it is not used for a while, or not at all any more if it is bad. */
  restoreFailed(key: string, error: unknown): Promise<void>;
  /** Loads the template now, in the background, since hosts will be created soon. */
  preload(): void;
  /**
   * Removes the templates of other images than the current one, except those that a host's disk is an overlay of. Of bad ones
   * with the same sources, the mark stays.
   */
  removeOthers(inUse: ReadonlySet<string>): Promise<void>;
  /**
   * Releases the memory of other templates than the current image's, once the worker has not used them for this long; they are
   * loaded again if a suspended host needs one. VMs that share the memory keep it.
   */
  unloadOthers(unusedMs: number): Promise<void>;
  close(): Promise<void>;
}

export function createTemplateStore(
  options: Pick<QemuOptions, 'stateDirectory' | 'libexecDirectory' | 'room' | 'restoredPlans'>,
  image: Pick<CurrentImage, 'find' | 'require'>,
  nodeKey: NodeKey,
  digests: Digests,
  logger: Logger,
): TemplateStore {
  const root = path.join(options.stateDirectory, 'templates');
  /** By key and time of making. `usedAt`: when it was last given to a restore, in milliseconds. */
  const loaded = new Map<
    string,
    { readonly template: Promise<LoadedTemplate | undefined>; usedAt: number }
  >();
  const failures = createRestoreFailures();
  let closed = false;
  const directory = (key: string) => path.join(root, key);
  const badMark = (key: string) => path.join(directory(key), 'damaged');
  const isBad = (key: string) => exists(badMark(key));
  const markBad = (key: string, problem: string) =>
    writeFileAtomically(badMark(key), `${problem}\n`, { mode: 0o644 }).catch((cause: unknown) => {
      // The caller reports why it is bad, which the next load finds again.
      logger.error(
        { template: key, err: cause },
        'A bad template could not be marked; it is found again later',
      );
    });

  const readRecord = (key: string) => readTemplateRecord(directory(key));

  async function loadChecked(key: string, record: TemplateRecord): Promise<LoadedTemplate | undefined> {
    const file = (name: TemplateFile) => path.join(directory(key), name);
    let memory: FileHandle | undefined;
    try {
      for (const name of templateFiles) {
        if (!(await exists(file(name))))
          await condemn(key, `The template is damaged: ${file(name)} is missing`);
      }
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
        memoryDigest: record.files.memory,
        kernelSecrets: record.kernelSecrets ?? [],
        digests: new Map(templateFiles.map((name) => [file(name), record.files[name]])),
      };
      await requireSound(template);
      return template;
    } catch (error) {
      await memory?.close();
      await refuse(key, error);
      return undefined;
    }
  }

  const keysOf = (of = image.require()) =>
    templateKeys(of, nodeKey, options.room, (key) => existsSync(badMark(key)));

  /** The memory is sealed; the other files may have changed since they were last verified. */
  async function requireSound({ key, disk, deviceState, digests: expected }: LoadedTemplate): Promise<void> {
    for (const file of [disk, deviceState]) {
      await requireSame(key, file, expected.get(file) ?? '', await digests.of(file));
    }
  }

  async function requireSame(key: string, file: string, expected: string, actual: string): Promise<void> {
    if (actual === expected) return;
    await condemn(key, `The template is damaged: ${file} has the digest ${actual}, not ${expected}`);
  }

  async function condemn(key: string, problem: string): Promise<never> {
    await markBad(key, problem);
    throw new HypervisorError(problem);
  }

  async function refuse(key: string, error: unknown): Promise<void> {
    const follows = (await isBad(key)) ? 'bad' : failures.failed(key, error);
    if (follows === undefined) return;
    if (follows !== 'bad') {
      logger.warn(
        { template: key, pauseSeconds: follows / 1_000, err: error },
        'A host could not be restored from a template; hosts boot cold until it is tried again after a pause',
      );
      return;
    }
    if (!(await isBad(key))) await markBad(key, errorMessage(error));
    logger.error(
      { event: 'template.bad', template: key, err: error },
      'A template is bad; hosts of its plan boot cold until another one has been made, within minutes',
    );
  }

  /** It may have been removed and made again since it was loaded. */
  const versionOf = (key: string, { madeAt }: TemplateRecord) => `${key} ${madeAt}`;

  const load = async (key: string) => {
    if (closed || (await isBad(key))) return undefined;
    const record = await readRecord(key);
    if (record === undefined) return undefined;
    const version = versionOf(key, record);
    const entry = loaded.get(version) ?? { template: loadChecked(key, record), usedAt: 0 };
    entry.usedAt = performance.now();
    loaded.set(version, entry);
    const template = await entry.template;
    if (template === undefined) {
      loaded.delete(version);
      return undefined;
    }
    try {
      await requireSound(template);
      return template;
    } catch (error) {
      await refuse(key, error);
      return undefined;
    }
  };

  const isMade = async (key: string) => !(await isBad(key)) && (await readRecord(key)) !== undefined;

  async function require(memory: TemplateMemory): Promise<LoadedTemplate> {
    const lost = (why: string) =>
      new LoadFailedError(`it is the difference from the template ${memory.key}, which ${why}`, true, {});
    const record = await readRecord(memory.key);
    if (record === undefined) throw lost('is gone');
    if (record.files.memory !== memory.digest) throw lost('was made again');
    const template = await load(memory.key);
    if (template !== undefined) return template;
    if (await isBad(memory.key)) throw lost('is bad');
    throw new HypervisorError(`The template ${memory.key} could not be loaded; the log says why`);
  }

  return {
    directory,
    load: async (key) => (failures.isPausing(key) ? undefined : load(key)),
    require,
    key: (of) => keysOf(of).key,
    keyFor({ planName, shape }) {
      const isRestored = options.restoredPlans?.has(planName) ?? true;
      return isRestored && fitsTemplate(shape) ? keysOf().key : undefined;
    },
    badKeys: (of) => keysOf(of).bad,
    async diskDigest(key) {
      const record = await readRecord(key);
      if (record === undefined) throw new HypervisorError(`The template ${directory(key)} has no record`);
      return record.files['disk.qcow2'];
    },
    isMade,
    has: async (key) => !failures.isPausing(key) && (await isMade(key)),
    restored(key) {
      if (failures.succeeded(key)) logger.info({ template: key }, 'Hosts are restored from a template again');
    },
    restoreFailed: refuse,
    preload() {
      if (image.find() === undefined) return;
      load(keysOf().key).catch((error: unknown) => {
        logger.warn({ err: error }, 'Loading the template ahead failed; it is loaded at its first use');
      });
    },
    async removeOthers(inUse) {
      const { key, bad } = keysOf();
      for (const name of await readdir(root).catch(() => [])) {
        if (name === key || inUse.has(name)) continue;
        const files = bad.includes(name)
          ? templateFiles.map((file) => path.join(directory(name), file))
          : [directory(name)];
        if ((await readRecord(name)) === undefined) continue;
        for (const file of files) await rm(file, { recursive: true, force: true });
      }
    },
    async unloadOthers(unusedMs) {
      const { key } = keysOf();
      const record = await readRecord(key);
      const current = record === undefined ? undefined : versionOf(key, record);
      for (const [version, { template, usedAt }] of loaded) {
        if (version === current || performance.now() - usedAt < unusedMs) continue;
        loaded.delete(version);
        await (await template)?.memory.close();
      }
    },
    async close() {
      closed = true;
      for (const { template } of loaded.values()) await (await template)?.memory.close();
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
