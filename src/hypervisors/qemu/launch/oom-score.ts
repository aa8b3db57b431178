import type { HostShape } from '../../../core/hypervisor/host-spec.ts';

const beyondFairShare = 500;
const least = 100;

/**
 * `oom_score_adj` (proc(5)) of a VM, in thousandths of the node's memory. If memory runs out, the kernel kills the
 * process with the most memory, this score included. Less the host's fair share of an overcommitted memory, so that the
 * host furthest beyond its share is first, in any plan, and everything else on the node is after all hosts.
 * @param node.overcommit how many times the node's memory is promised to hosts.
 */
export function oomScore(
  { memoryMib }: HostShape,
  node: { readonly totalMib: number; readonly overcommit: number },
): number {
  const fairShare = Math.round((1000 * memoryMib) / node.overcommit / node.totalMib);
  return Math.max(least, beyondFairShare - fairShare);
}
