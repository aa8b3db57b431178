import type { Images } from '../../core/hypervisor/images.ts';
import type { QemuDeps } from './deps.ts';
import { imageVersion } from './image/image-version.ts';

export function createImages({ options, image, logger }: QemuDeps): Images {
  const version = () => {
    const current = image.find();
    return current && imageVersion(current.digest);
  };
  return {
    imageVersion: version,
    async installImage(report, signal) {
      const installed = await options.ensureImage(report, signal);
      const former = image.find();
      if (installed.digest === former?.digest) return;
      if (former !== undefined && options.restoredPlans?.size !== 0) {
        image.setNext(installed);
        return;
      }
      await image.replace(installed);
      logger.info({ version: version() }, 'New hosts get another guest image from now on');
    },
  };
}
