import type { Knex } from 'knex';

/** One pool for all plans: whether a parked host can get the size of a larger plan, and what was created lately. */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts ADD COLUMN can_grow boolean NOT NULL DEFAULT false;
    DROP INDEX hosts_parked;
    CREATE INDEX hosts_parked ON hosts (memory_mib, vcpus, disk_gib, created_at) WHERE state IN ('parking', 'parked');
    CREATE INDEX instances_created ON instances (created_at);`);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    DROP INDEX instances_created;
    DROP INDEX hosts_parked;
    CREATE INDEX hosts_parked ON hosts (plan_name, created_at) WHERE state IN ('parking', 'parked');
    ALTER TABLE hosts DROP COLUMN can_grow;`);
}
