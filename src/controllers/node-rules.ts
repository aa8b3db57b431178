import type { Hypervisor } from '../core/hypervisor/hypervisor.ts';
import type { NodeRuleRecords } from '../core/ports/node-rules.ts';
import { errorMessage } from '../lib/error-message.ts';
import type { Logger } from '../lib/logger.ts';

/** Puts back the network rules that all hosts of a node share if a program has removed or changed them, and reports it. */
export interface NodeRulesController {
  runOnce(): Promise<void>;
}

export function createNodeRulesController(deps: {
  readonly hypervisor: Pick<Hypervisor, 'repairNode'>;
  readonly records: NodeRuleRecords;
  /** Name of the worker. */
  readonly name: string;
  readonly logger: Logger;
}): NodeRulesController {
  const { hypervisor, records, name, logger } = deps;
  /** Repairs that are not on record yet, because Postgres did not answer. */
  let unrecorded: { repairs: number; altered: string } | undefined;
  /** The failure on record; null if there may be one of a former process. */
  let failure: string | undefined | null = null;

  return {
    async runOnce() {
      try {
        const { altered, foreign } = await hypervisor.repairNode();
        if (foreign.length > 0) {
          logger.warn(
            { event: 'node.foreign_chains', foreign },
            "Another program has added firewall chains on the node, which can block or redirect hosts' traffic; they are left as they are",
          );
        }
        if (altered.length > 0) {
          logger.error(
            { event: 'node.rules_repaired', altered },
            "The node's network rules for hosts were missing or altered; they are in force again",
          );
          unrecorded = { repairs: (unrecorded?.repairs ?? 0) + 1, altered: altered.join('; ') };
        }
      } catch (error) {
        const reason = errorMessage(error);
        if (reason !== failure) await records.recordFailure(name, reason);
        failure = reason;
        throw error;
      }
      if (unrecorded === undefined && failure === undefined) return;
      await records.recordInForce(name, unrecorded);
      unrecorded = undefined;
      failure = undefined;
    },
  };
}
