import type { Images } from '../../core/hypervisor/images.ts';
import type { QemuDeps } from './deps.ts';
import { imageVersion } from './image/image-version.ts';

export function createImages({ options, image, templates, logger }: QemuDeps): Images {
  const version = () => {
    const current = image.find();
    return current && imageVersion(current.digest);
  };
  return {
    imageVersion: version,
    async installImage(report, signal) {
      const former = image.find();
      const installed = await options.ensureImage(report, signal);
      if (installed.digest === former?.digest) return;
      image.replace(installed);
      logger.info({ version: version() }, 'New hosts get another guest image from now on');
      if (options.loadAhead) templates.preload();
    },
  };
}
