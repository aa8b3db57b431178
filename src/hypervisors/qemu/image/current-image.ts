import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { Logger } from '../../../lib/logger.ts';
import { writeFileAtomically } from '../../../lib/write-file-atomically.ts';
import { type GuestImage, readImage } from './guest-image.ts';

/** The image that new hosts and templates are made from. It changes while the driver is in use. */
export interface CurrentImage {
  /** Undefined while none is installed. */
  find(): GuestImage | undefined;
  /** @throws HypervisorError while none is installed. */
  require(): GuestImage;
  /** The image that becomes the current one when its template is made; undefined if none waits for that. */
  next(): GuestImage | undefined;
  setNext(image: GuestImage): void;
  /** Makes it the current one, also after a restart. */
  replace(image: GuestImage): Promise<void>;
}

const fileIn = (stateDirectory: string) => path.join(stateDirectory, 'current-image');

/** Digest of the image on record as the current one; undefined if there has been none. */
export async function readCurrentDigest(stateDirectory: string): Promise<string | undefined> {
  return readFile(fileIn(stateDirectory), 'utf8').then(
    (text) => text.trim(),
    () => undefined,
  );
}

/**
 * The image on record, or else the installed one: a newer one whose template is not made yet is current only if there is no
 * former one.
 * @param installed what new hosts would be made from if nothing were on record.
 */
export async function openCurrentImage(
  stateDirectory: string,
  installed: GuestImage | undefined,
  logger: Logger,
): Promise<CurrentImage> {
  const write = (image: GuestImage) =>
    writeFileAtomically(fileIn(stateDirectory), `${image.digest}\n`, { mode: 0o644 });
  const digest = await readCurrentDigest(stateDirectory);
  let current = installed;
  let next: GuestImage | undefined;
  if (digest === undefined) {
    if (installed !== undefined) await write(installed);
  } else if (digest !== installed?.digest) {
    const recorded = await readImage(path.join(stateDirectory, 'images', digest)).catch((error: unknown) => {
      logger.warn(
        { image: digest, err: error },
        'The current guest image is gone or damaged; another one is used',
      );
    });
    current = recorded ?? installed;
    if (recorded === undefined && installed !== undefined) await write(installed);
  }
  return {
    find: () => current,
    require() {
      if (current === undefined) throw new HypervisorError('No guest image is installed yet.');
      return current;
    },
    next: () => next,
    setNext(image) {
      next = image;
    },
    async replace(image) {
      await write(image);
      current = image;
      next = undefined;
    },
  };
}
