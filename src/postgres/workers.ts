import type { Knex } from 'knex';
import type { WorkerRecords } from '../core/ports/worker-records.ts';

/** A condition on a row of `workers`: one without a report for 15 s is taken for dead. */
export const isWorkerAlive = `seen_at > clock_timestamp() - interval '15 seconds'`;

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
          disk_available_mib: worker.disk?.availableMib ?? null,
          disk_capacity_mib: worker.disk?.capacityMib ?? null,
          disk_reserve_mib: worker.disk?.reserveMib ?? null,
          preparing: worker.preparation?.preparing ?? null,
          preparation_problem: worker.preparation?.problem ?? null,
          seen_at: database.raw('clock_timestamp()'),
        })
        .onConflict('name')
        .merge();
    },

    async remove(name) {
      await database('workers').where({ name }).delete();
    },
  };
}
