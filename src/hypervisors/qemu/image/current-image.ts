import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import type { GuestImage } from './guest-image.ts';

/** The image that new hosts and templates are made from. It changes while the driver is in use. */
export interface CurrentImage {
  /** Undefined while none is installed. */
  find(): GuestImage | undefined;
  /** @throws HypervisorError while none is installed. */
  require(): GuestImage;
  replace(image: GuestImage): void;
}

export function createCurrentImage(first: GuestImage | undefined): CurrentImage {
  let current = first;
  return {
    find: () => current,
    require() {
      if (current === undefined) throw new HypervisorError('No guest image is installed yet.');
      return current;
    },
    replace(image) {
      current = image;
    },
  };
}
