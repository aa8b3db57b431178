import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';

/** QEMU was started, but the saved state of a VM was not loaded into it. */
export class LoadFailedError extends HypervisorError {
  override readonly name: string = 'LoadFailedError';

  constructor(
    message: string,
    /** QEMU has read the state and can't load it: it is damaged, or of another VM. False: the reason may pass. */
    readonly isRefused: boolean,
    options: ErrorOptions,
  ) {
    super(message, options);
  }
}
