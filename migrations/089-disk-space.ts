import type { Knex } from 'knex';

/**
 * Disk space of a worker's node, with which creates are admitted, and why a running host's VM is stopped although its
 * power is `running`.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE workers
      ADD COLUMN disk_available_mib bigint,
      ADD COLUMN disk_capacity_mib bigint,
      ADD COLUMN disk_reserve_mib bigint;
    ALTER TABLE hosts ADD COLUMN halted text
      CHECK (halted IN ('disk-full', 'io-error', 'internal-error', 'guest-panicked', 'paused'));
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts DROP COLUMN halted;
    ALTER TABLE workers DROP COLUMN disk_available_mib, DROP COLUMN disk_capacity_mib, DROP COLUMN disk_reserve_mib;
  `);
}
