import type { HostShape } from '../../../core/hypervisor/host-spec.ts';
import type { VmBounds } from '../options.ts';
import type { GuestImage } from '../image/guest-image.ts';
import type { DiskChain, Memory } from './arguments.ts';

/** What a VM is started with, besides its layout. */
export interface LaunchSpec {
  /** Size of the host: its limits follow from it. */
  readonly shape: HostShape;
  /** The rest of the shape is added after the start. */
  readonly bounds: VmBounds;
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
