import { readdir, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { ImageSuite } from '../../../core/hypervisor/images.ts';
import { renameDurably } from '../../../lib/write-file-atomically.ts';
import { type ImageOptions, imagesIn, newestImage } from './build-image.ts';
import { readCurrentDigest } from './current-image.ts';
import { type ImagePackages, readImagePackages } from './image-packages.ts';
import { imageVersion } from './image-version.ts';
import { readHostRecord } from '../host-record.ts';
import { readTemplateRecord } from '../template/template-record.ts';

/** An installed guest image and what uses it. */
export interface InstalledImage {
  readonly directory: string;
  /** Semantic versioning 2.0. */
  readonly version: string;
  readonly suite: ImageSuite;
  readonly packages: ImagePackages;
  /** ISO 8601. */
  readonly builtAt: string;
  /** Total size of its files. */
  readonly bytes: number;
  /** Whether new hosts are made from it. */
  readonly isCurrent: boolean;
  /** Whether new hosts are made from it once its template is made, after the next start. */
  readonly isNewest: boolean;
  /** Hosts that boot it, or would return to it if their update fails. */
  readonly hosts: number;
  /** Templates that were made from it. */
  readonly templates: number;
}

/** A host in the database, with the image version recorded there. */
export interface ImageUser {
  readonly host: string;
  readonly imageVersion: string | undefined;
}

/**
 * The installed images, newest first.
 * @param users the hosts in the database; during an update a host boots another image than its own record says.
 * @throws HypervisorError if the record of an image can't be read.
 */
export async function installedImages(
  options: ImageOptions & { readonly stateDirectory: string },
  users: readonly ImageUser[],
): Promise<readonly InstalledImage[]> {
  const images = await imagesIn(options.imagesDirectory);
  // Without one of this recipe, new hosts get the newest of a former one.
  const newest = (await newestImage(images, options)) ?? images[0];
  const current = (await readCurrentDigest(options.stateDirectory)) ?? newest?.record.digest;
  const folder = (name: string) => path.join(options.stateDirectory, name);
  const hosts = await Promise.all(
    (await names(folder('hosts'))).map(async (id) => ({
      id,
      image: (await readHostRecord(path.join(folder('hosts'), id, 'host.json')))?.image,
    })),
  );
  const templates = await Promise.all(
    (await names(folder('templates'))).map((key) => readTemplateRecord(path.join(folder('templates'), key))),
  );
  return Promise.all(
    images.map(async (image): Promise<InstalledImage> => {
      const { digest, suite, builtAt, files } = image.record;
      const version = imageVersion(digest);
      const usedBy = new Set([
        ...hosts.filter((host) => host.image === digest).map(({ id }) => id),
        ...users.filter((user) => user.imageVersion === version).map(({ host }) => host),
      ]);
      const sizes = await Promise.all(
        Object.keys(files).map(async (name) => (await stat(path.join(image.folder, name))).size),
      );
      return {
        directory: image.folder,
        version,
        suite: suite ?? 'bookworm',
        packages: await readImagePackages(image.folder),
        builtAt,
        bytes: sizes.reduce((sum, size) => sum + size, 0),
        isCurrent: digest === current,
        isNewest: image === newest,
        hosts: usedBy.size,
        templates: templates.filter((template) => template?.image === digest).length,
      };
    }),
  );
}

export const isNeeded = ({ isCurrent, isNewest, hosts, templates }: InstalledImage) =>
  isCurrent || isNewest || hosts > 0 || templates > 0;

/** Removes an image. If this is interrupted, the next image build removes the rest. */
export async function removeImage({ directory }: InstalledImage): Promise<void> {
  const remains = path.join(path.dirname(directory), `build-${process.pid}-${path.basename(directory)}`);
  await renameDurably(directory, remains);
  await rm(remains, { recursive: true, force: true });
}

const names = (directory: string) => readdir(directory).catch(() => []);
