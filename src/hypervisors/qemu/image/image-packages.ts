import { readFile } from 'node:fs/promises';
import path from 'node:path';

/** The Debian packages of an image, and what follows from them. */
export interface ImagePackages {
  /** "NAME VERSION" of each. */
  readonly list: readonly string[];
  /** Version of the Docker engine as it reports it itself; undefined if unknown. */
  readonly engine: string | undefined;
  /** Release of the kernel, as uname(2) has it; undefined if unknown. */
  readonly kernel: string | undefined;
}

/** Reads the packages of the image in this folder; empty if its list is missing. */
export async function readImagePackages(directory: string): Promise<ImagePackages> {
  const text = await readFile(path.join(directory, 'packages'), 'utf8').catch(() => '');
  return {
    list: text.split('\n').filter((line) => line !== ''),
    // Without the revision of the Debian package.
    engine: /^docker\.io (\S+)-/m.exec(text)?.[1],
    kernel: /^linux-image-(\d\S*) /m.exec(text)?.[1],
  };
}
