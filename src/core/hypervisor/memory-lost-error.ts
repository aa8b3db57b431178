import { HypervisorError } from './hypervisor-error.ts';

/**
 * The memory that a host was suspended to can't be loaded, so there is nothing to resume. The host is stopped and its disk
 * is untouched: the next start boots it from there. Trying again does not help.
 */
export class MemoryLostError extends HypervisorError {
  override readonly name: string = 'MemoryLostError';
}
