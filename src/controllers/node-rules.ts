import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { Logger } from '../lib/logger.ts';

/** Puts back the network rules that all hosts share if a program on the node has removed or changed them, and says so. */
export async function repairNodeRules(deps: {
  readonly hypervisor: Pick<Hypervisor, 'repairNode'>;
  readonly logger: Logger;
}): Promise<void> {
  const altered = await deps.hypervisor.repairNode();
  if (altered.length === 0) return;
  deps.logger.error(
    { event: 'node.rules_repaired', altered },
    "The node's network rules for hosts were missing or altered; they are in force again",
  );
}
