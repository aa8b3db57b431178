import { readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { type ImageOptions, imagesIn, newestOf } from './build-image.ts';
import { imageVersion } from './image-version.ts';
import { readHostRecord } from '../host-record.ts';
import { readTemplateRecord } from '../template/template-record.ts';

/** A guest image on this machine, and what needs it. */
export interface InstalledImage {
  readonly directory: string;
  /** Semantic versioning 2.0. */
  readonly version: string;
  /** ISO 8601. */
  readonly builtAt: string;
  /** Of its files together. */
  readonly bytes: number;
  /** New hosts are made from it from the next start on. */
  readonly isNewest: boolean;
  /** How many hosts boot it, or may be led back to it by an update that fails. */
  readonly hosts: number;
  /** How many templates were made from it. */
  readonly templates: number;
}

/** A host on record: its id, and the version of the image that it has there. */
export interface ImageUser {
  readonly host: string;
  readonly imageVersion: string | undefined;
}

/**
 * The images that are installed, the newest first.
 * @param users the hosts on record: in the middle of an update a host boots another image than it has there.
 * @throws HypervisorError where the record of an image can't be read.
 */
export async function installedImages(
  options: ImageOptions & { readonly stateDirectory: string },
  users: readonly ImageUser[],
): Promise<readonly InstalledImage[]> {
  const images = await imagesIn(options.imagesDirectory);
  const newest = await newestOf(images, options.recipeDirectory);
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
      const { digest, builtAt, files } = image.record;
      const version = imageVersion(digest);
      const needing = new Set([
        ...hosts.filter((host) => host.image === digest).map(({ id }) => id),
        ...users.filter((user) => user.imageVersion === version).map(({ host }) => host),
      ]);
      const sizes = await Promise.all(
        Object.keys(files).map(async (name) => (await stat(path.join(image.folder, name))).size),
      );
      return {
        directory: image.folder,
        version,
        builtAt,
        bytes: sizes.reduce((sum, size) => sum + size, 0),
        isNewest: image === newest,
        hosts: needing.size,
        templates: templates.filter((template) => template?.image === digest).length,
      };
    }),
  );
}

export const isNeeded = ({ isNewest, hosts, templates }: InstalledImage) =>
  isNewest || hosts > 0 || templates > 0;

/** Removes an image from this machine. Killed in the middle, the next build of an image removes the rest. */
export async function removeImage({ directory }: InstalledImage): Promise<void> {
  const remains = path.join(path.dirname(directory), `build-${process.pid}-${path.basename(directory)}`);
  await rename(directory, remains);
  await rm(remains, { recursive: true, force: true });
}

const names = (directory: string) => readdir(directory).catch(() => []);
