import type { Knex } from 'knex';

/** What a worker tells of itself. */
export interface WorkerRow {
  name: string;
  hypervisor: string;
  templates: string[];
  /** What the machine's memory could still take, as its kernel reckons; null until it was told. */
  memory_available_mib: number | null;
  /** Null where its hosts take no memory of the machine. */
  memory_total_mib: number | null;
  image_version: string | null;
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
    memoryTotalMib: number | undefined;
    imageVersion: string;
  },
): Promise<void> {
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
}

/** The version of the image that the worker which was heard of last makes hosts from. */
export async function installedImageVersion(database: Knex): Promise<string | undefined> {
  const row = await database<WorkerRow>('workers')
    .whereNotNull('image_version')
    .orderBy('seen_at', 'desc')
    .first('image_version');
  return row?.image_version ?? undefined;
}

/** Takes the worker off the books on an orderly stop. */
export async function removeWorker(database: Knex, name: string): Promise<void> {
  await database('workers').where({ name }).delete();
}
