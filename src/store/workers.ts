import type { Knex } from 'knex';

/** What a worker tells of itself. */
export interface WorkerRow {
  name: string;
  hypervisor: string;
  templates: string[];
  /** What the machine's memory could still take, as its kernel reckons; null until it was told. */
  memory_available_mib: number | null;
  seen_at: Date;
}

/** Tells that this worker is alive, and what it can do. */
export async function reportWorker(
  database: Knex,
  worker: {
    name: string;
    hypervisor: string;
    templates: readonly string[];
    memoryAvailableMib: number;
  },
): Promise<void> {
  await database('workers')
    .insert({
      name: worker.name,
      hypervisor: worker.hypervisor,
      templates: [...worker.templates],
      memory_available_mib: Math.floor(worker.memoryAvailableMib),
      seen_at: database.raw('clock_timestamp()'),
    })
    .onConflict('name')
    .merge();
}

/** Takes the worker off the books on an orderly stop. */
export async function removeWorker(database: Knex, name: string): Promise<void> {
  await database('workers').where({ name }).delete();
}
