import type { Knex } from 'knex';
import type { Usage } from '../core/quotas.ts';
import type { Records } from '../core/store.ts';

interface UsageRow {
  scope: string;
  instances: number;
  vcpus: number;
  /** bigint: the driver gives it as text. */
  memory_mib: string;
  disk_gib: string;
  published_ports: number;
}

export const noUsage: Usage = { instances: 0, vcpus: 0, memoryMib: 0, diskGib: 0, publishedPorts: 0 };

/** The counts that a trigger keeps (migrations/011-quotas.ts). */
export function createUsageRecords(connection: Knex): Pick<Records, 'usage' | 'reserve' | 'machineMemory'> {
  return {
    async machineMemory() {
      const row: { memory_total_mib: number; memory_available_mib: number } | undefined = await connection(
        'workers',
      )
        .whereNotNull('memory_total_mib')
        .whereNotNull('memory_available_mib')
        .where('seen_at', '>', connection.raw(`clock_timestamp() - interval '1 minute'`))
        .orderBy('memory_available_mib')
        .first('memory_total_mib', 'memory_available_mib');
      return row && { totalMib: row.memory_total_mib, availableMib: row.memory_available_mib };
    },

    async reserve(hostId, planName, added) {
      await connection('hosts').where({ id: hostId }).update({
        reserved_plan: planName,
        reserved_vcpus: added.vcpus,
        reserved_memory_mib: added.memoryMib,
        reserved_disk_gib: added.diskGib,
        reserved_ports: added.publishedPorts,
      });
    },

    async usage(scopes) {
      const rows: UsageRow[] = await connection<UsageRow>('quota_usage')
        .whereIn('scope', [...scopes])
        .orderBy('scope');
      return new Map(
        rows.map((row) => [
          row.scope,
          {
            instances: row.instances,
            vcpus: row.vcpus,
            memoryMib: Number(row.memory_mib),
            diskGib: Number(row.disk_gib),
            publishedPorts: row.published_ports,
          },
        ]),
      );
    },
  };
}
