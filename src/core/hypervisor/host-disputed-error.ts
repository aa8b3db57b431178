import { HypervisorError } from './hypervisor-error.ts';

/**
 * The host is not what Postgres says: its own record names another owner or can't be read, or another host on the node
 * uses its slot. Nothing was changed; trying again does not help.
 */
export class HostDisputedError extends HypervisorError {
  override readonly name: string = 'HostDisputedError';
}
