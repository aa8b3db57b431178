import type { ImageSuite } from '../core/hypervisor/images.ts';
import type { InstalledImage } from '../hypervisors/qemu/image/installed-images.ts';
import type { SecurityUpdate } from '../hypervisors/qemu/image/security-updates.ts';
import { errorMessage } from '../lib/error-message.ts';

type Ask = (suite: ImageSuite, packages: readonly string[]) => Promise<readonly SecurityUpdate[]>;

/** Which security updates each image lacks; undefined if that is unknown. */
export interface ImageUpdates {
  readonly missing: ReadonlyMap<InstalledImage, readonly SecurityUpdate[]>;
  /** Why a suite's are unknown. */
  readonly problems: readonly string[];
}

/** Asks the mirror of each suite once. */
export async function findImageUpdates(images: readonly InstalledImage[], ask: Ask): Promise<ImageUpdates> {
  const missing = new Map<InstalledImage, readonly SecurityUpdate[]>();
  const problems: string[] = [];
  await Promise.all(
    [...new Set(images.map(({ suite }) => suite))].map(async (suite) => {
      const ofSuite = images.filter((image) => image.suite === suite);
      try {
        const updates = await ask(suite, [...new Set(ofSuite.flatMap(({ packages }) => packages.list))]);
        for (const image of ofSuite) {
          const has = new Set(image.packages.list);
          if (has.size === 0) continue;
          missing.set(
            image,
            updates.filter(({ name, version }) => has.has(`${name} ${version}`)),
          );
        }
      } catch (error) {
        problems.push(
          `Debian's mirror could not be asked for security updates of ${suite}: ${errorMessage(error)}`,
        );
      }
    }),
  );
  return { missing, problems };
}
