import type { NodeMemory } from '../admission.ts';
import type { Usage } from '../quotas.ts';

/** What hosts use of quotas and of the node. */
export interface UsageRecords {
  /** Memory of the machine with the least of it among those whose workers have been heard of lately; undefined where none tells. */
  nodeMemory(): Promise<NodeMemory | undefined>;
  /** Counts what an update adds to a host until its operation ends. */
  reserveUsage(hostId: string, planName: string, added: Usage): Promise<void>;
  /** What is in use in each of these scopes of `core/quotas.ts`. */
  usage(scopes: readonly string[]): Promise<ReadonlyMap<string, Usage>>;
}
