import type { Knex } from 'knex';
import type { Usage } from '../../core/model/usage.ts';
import type { UsageRecords } from '../../core/ports/usage-records.ts';
import { runPrepared } from '../prepared.ts';

interface UsageRow {
  scope: string;
  instances: number;
  vcpus: number;
  /** bigint: the driver returns it as text. */
  memory_mib: string;
  disk_gib: string;
  published_ports: number;
}

export const noUsage: Usage = { instances: 0, vcpus: 0, memoryMib: 0, diskGib: 0, publishedPorts: 0 };

/** Memory of the node with the least available, and what hosts will take that the measurement does not include yet. */
const nodeMemorySql = `
  SELECT memory_total_mib, memory_available_mib, (
    SELECT coalesce(sum(mib), 0)::integer FROM (
      SELECT memory_mib AS mib FROM hosts WHERE state = 'creating'
      UNION ALL SELECT reserved_memory_mib FROM hosts WHERE reserved_plan IS NOT NULL
      UNION ALL SELECT memory_mib FROM hosts
        WHERE state = 'running' AND power = 'running' AND power_since > workers.seen_at
    ) AS coming) AS coming_mib
  FROM workers
  WHERE memory_total_mib IS NOT NULL AND memory_available_mib IS NOT NULL
    AND seen_at > clock_timestamp() - interval '1 minute'
  ORDER BY memory_available_mib LIMIT 1`;

const nodeDiskSql = `
  SELECT disk_available_mib, disk_capacity_mib,
    (SELECT coalesce(sum(disk_gib), 0) FROM hosts WHERE state IN ('parking', 'parked')) AS pool_gib
  FROM workers
  WHERE disk_available_mib IS NOT NULL AND seen_at > clock_timestamp() - interval '1 minute'
  ORDER BY disk_available_mib LIMIT 1`;

/** bigint: the driver returns it as text. */
interface DiskRow {
  disk_available_mib: string;
  disk_capacity_mib: string;
  pool_gib: string;
}

interface MemoryRow {
  memory_total_mib: number;
  memory_available_mib: number;
  coming_mib: number;
}

/** Counts maintained by a trigger (migrations/011-quotas.ts). */
export function createUsageRecords(connection: Knex): UsageRecords {
  return {
    async nodeMemory() {
      const [row] = await runPrepared<MemoryRow>(connection, 'node-memory', nodeMemorySql);
      return (
        row && {
          totalMib: row.memory_total_mib,
          availableMib: row.memory_available_mib,
          comingMib: row.coming_mib,
        }
      );
    },

    async nodeDisk() {
      const [row] = await runPrepared<DiskRow>(connection, 'node-disk', nodeDiskSql);
      return (
        row && {
          availableMib: Number(row.disk_available_mib),
          capacityMib: Number(row.disk_capacity_mib),
          poolGib: Number(row.pool_gib),
        }
      );
    },

    async reserveUsage(hostId, planName, added) {
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
