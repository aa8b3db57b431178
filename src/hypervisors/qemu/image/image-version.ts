import { readdir } from 'node:fs/promises';
import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

/** Raised where hosts of an older image need more than a restart to become hosts of a newer one. */
const generation = '1.0.0';
const digits = 12;

/**
 * The version of an image (semantic versioning 2.0): the digest of its recipe and packages is its build
 * metadata, so that any change of either is another version.
 */
export function imageVersion(digest: string): string {
  return `${generation}+${digest.slice(0, digits)}`;
}

/**
 * The digest of the installed image of this version; undefined where none is named.
 * @throws HypervisorError where it is not installed.
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
