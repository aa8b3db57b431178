import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import type { GuestImage } from '../image/guest-image.ts';
import type { DiskChain, Memory } from './arguments.ts';

/** What a VM is started with, besides its layout. */
export interface LaunchSpec {
  readonly shape: HostShape;
  readonly image: GuestImage;
  readonly memory: Memory;
  /** The VM starts paused, to be loaded; else it boots. */
  readonly incoming: boolean;
  readonly disk: DiskChain;
  /** Open descriptor of a template's sealed memory. */
  readonly memoryDescriptor?: number;
  /** Open descriptor of the template's device state. */
  readonly stateDescriptor?: number;
}
