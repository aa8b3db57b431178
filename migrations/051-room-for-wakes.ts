import type { Knex } from 'knex';

/**
 * A wake is refused if the node lacks memory, and gateways are notified. Hosts admitted after a worker's last
 * measurement count in addition to it; the indexes find them however many hosts there are.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts ADD COLUMN wake_refused_at timestamptz;
    CREATE INDEX hosts_planned ON hosts (id) WHERE state = 'planned';
    CREATE INDEX hosts_growing ON hosts (id) WHERE reserved_plan IS NOT NULL;
    CREATE INDEX hosts_on_since ON hosts (power_since) WHERE state = 'running' AND power = 'on';
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    DROP INDEX hosts_planned, hosts_growing, hosts_on_since;
    ALTER TABLE hosts DROP COLUMN wake_refused_at;
  `);
}
