import { readdir } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

/** Raise this if hosts of an older image need more than a restart to use a newer one. */
const generation = '1.0.0';
const digits = 12;

/**
 * The version of an image (semantic versioning 2.0). The digest of its recipe and packages is the build metadata, so
 * every change of either makes another version.
 */
export function imageVersion(digest: string): string {
  return `${generation}+${digest.slice(0, digits)}`;
}

/**
 * The digest of the installed image of this version; undefined if no version is given.
 * @throws HypervisorError if it is not installed.
 */
export async function imageOfVersion(
  imagesDirectory: string,
  version: string | undefined,
): Promise<string | undefined> {
  if (version === undefined) return undefined;
  const digests = (await readdir(imagesDirectory)).filter((name) => imageVersion(name) === version);
  if (digests[0] === undefined) {
    throw new HypervisorError(`no image of version ${version} is installed in ${imagesDirectory}`);
  }
  return digests[0];
}
