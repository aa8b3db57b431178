import type { NodeMemory } from '../model/node-memory.ts';
import type { Usage } from '../model/usage.ts';

/** What hosts use of quotas and of the node. */
export interface UsageRecords {
  /** Memory of the node with the least available, among nodes whose worker reported recently; undefined if none did. */
  nodeMemory(): Promise<NodeMemory | undefined>;
  /** Counts what an update adds to a host until its operation ends. */
  reserveUsage(hostId: string, planName: string, added: Usage): Promise<void>;
  /** What is in use in each of these scopes of `core/quotas.ts`. */
  usage(scopes: readonly string[]): Promise<ReadonlyMap<string, Usage>>;
}
