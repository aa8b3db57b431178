import type { ObservedHost } from '../core/hypervisor/lifecycle.ts';
import type { Host } from '../core/model/host.ts';
import type { HostRecords } from '../core/ports/host-records.ts';

/** Takes over from the hosts' own records when their memory was lost: operators and tenants see the rows only. */
export async function recordMemoryLosses(
  records: Pick<HostRecords, 'recordMemoryLoss'>,
  observed: readonly ObservedHost[],
  hosts: readonly Host[],
): Promise<void> {
  const known = new Map(hosts.map((host) => [host.id, host]));
  for (const { hostId, memoryLostAt } of observed) {
    const host = known.get(hostId);
    if (host === undefined || memoryLostAt === undefined) continue;
    if (host.memoryLostAt?.getTime() === memoryLostAt.getTime()) continue;
    await records.recordMemoryLoss(hostId, memoryLostAt);
  }
}
