import type { Knex } from 'knex';
import type { WorkerRecords } from '../core/ports/worker-records.ts';

interface WorkerRow {
  name: string;
  hypervisor: string;
  templates: string[];
  memory_available_mib: number | null;
  memory_total_mib: number | null;
  image_version: string | null;
  seen_at: Date;
}

export function createWorkerRecords(database: Knex): WorkerRecords {
  return {
    async report(worker) {
      await database('workers')
        .insert({
          name: worker.name,
          hypervisor: worker.hypervisor,
          templates: [...worker.templates],
          memory_available_mib: Math.floor(worker.memoryAvailableMib),
          memory_total_mib: worker.memoryTotalMib ?? null,
          image_version: worker.imageVersion,
          seen_at: database.raw('clock_timestamp()'),
        })
        .onConflict('name')
        .merge();
    },

    async remove(name) {
      await database('workers').where({ name }).delete();
    },

    async installedImageVersion() {
      const row = await database<WorkerRow>('workers')
        .whereNotNull('image_version')
        .orderBy('seen_at', 'desc')
        .first('image_version');
      return row?.image_version ?? undefined;
    },
  };
}
