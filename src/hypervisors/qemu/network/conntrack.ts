import { HypervisorError } from '../../../core/hypervisor/hypervisor-error.ts';
import { runTool } from '../../run-tool.ts';

/**
 * Removes a host's entries from the node's connection tracking table: of connections that it opened, that were opened to its
 * published ports, and of gateways to its engine. Otherwise packets of old clients would reach the next host with this address.
 */
export async function forgetConnections(hostAddress: string): Promise<void> {
  for (const side of ['--orig-src', '--reply-src']) {
    await runTool('conntrack', ['--delete', '--family', 'ipv4', side, hostAddress]).catch(unlessNone);
  }
}

/** conntrack(8) fails if there was nothing to delete. */
function unlessNone(error: unknown): void {
  if (error instanceof HypervisorError && error.message.includes(' 0 flow entries have been deleted')) return;
  throw error;
}
