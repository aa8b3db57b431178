import type { NodeDisk } from '../model/node-disk.ts';
import type { NodeMemory } from '../model/node-memory.ts';
import type { Usage } from '../model/usage.ts';

/** Usage of quotas and of the node's memory. */
export interface UsageRecords {
  /** Memory of the node with the least available, among nodes whose worker reported recently; undefined if none did. */
  nodeMemory(): Promise<NodeMemory | undefined>;
  /** Disk space of the node with the least available, in the same way; undefined also if hosts take none of it. */
  nodeDisk(): Promise<NodeDisk | undefined>;
  /** Reserves what an update adds to a host until its operation ends. */
  reserveUsage(hostId: string, planName: string, added: Usage): Promise<void>;
  /** Usage in each of these scopes (`core/quotas.ts`). */
  usage(scopes: readonly string[]): Promise<ReadonlyMap<string, Usage>>;
}
