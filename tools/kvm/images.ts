import path from 'node:path';
import { imageSuites } from '../../src/core/hypervisor/images.ts';
import { ensureGuestImage } from '../../src/hypervisors/qemu/image/build-image.ts';

/**
 * Prints the folders of the guest images that the tests of this checkout use (test/support/vm-cache.ts), one a line. Builds
 * those that are missing.
 */
const imagesDirectory = '/var/cache/berth-test/images';
const recipeDirectory = path.join(import.meta.dirname, '..', '..', '..', 'image');
for (const suite of imageSuites) {
  let last = '';
  const image = await ensureGuestImage(
    { imagesDirectory, recipeDirectory, suite },
    ({ step, percent }) => {
      const line = `guest image of ${suite}: ${step} ${Math.floor(percent / 5) * 5} %\n`;
      if (line !== last) process.stderr.write(line);
      last = line;
    },
    new AbortController().signal,
  );
  process.stdout.write(`${image.directory}\n`);
}
