import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ImageSuite } from '../../../core/hypervisor/images.ts';
import { runTool } from '../../run-tool.ts';
import type { ImageOptions } from './build-image.ts';

/** A package of an image, and the newer version that Debian's security team has released. */
export interface SecurityUpdate {
  readonly name: string;
  readonly version: string;
  readonly newer: string;
}

/** Two tries of ten seconds for each of a few files. */
const timeoutMs = 60_000;

/**
 * The security updates of a suite for these packages ("NAME VERSION"), as its mirror lists them now.
 * @throws HypervisorError if the mirror can't be asked.
 */
export async function securityUpdates(
  { recipeDirectory }: Pick<ImageOptions, 'recipeDirectory'>,
  suite: ImageSuite,
  packages: readonly string[],
): Promise<readonly SecurityUpdate[]> {
  const work = await mkdtemp(path.join(tmpdir(), 'berth-updates-'));
  try {
    const recipe = path.join(recipeDirectory, 'build');
    const input = packages.map((line) => `${line}\n`).join('');
    const output = await runTool('bash', [recipe, 'updates', suite, work], { input, timeoutMs });
    return output
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => {
        const [name = '', version = '', newer = ''] = line.split(' ');
        return { name, version, newer };
      });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
