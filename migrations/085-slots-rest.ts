import type { Knex } from 'knex';

/**
 * A slot rests after its host was destroyed, so that clients of that host do not reach the next tenant's by its
 * addresses and ports. A host's block of ports is recorded, since blocks of another size follow from another catalog.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE slots
      ADD COLUMN rests_until timestamptz,
      ADD COLUMN former_tenant_id uuid;

    ALTER TABLE hosts ADD COLUMN port_block integer;
    UPDATE hosts SET port_block = ports WHERE state = 'destroyed';
    -- Earlier blocks had at least 20 ports; after a change of the catalog they may overlap.
    UPDATE hosts SET port_block = least(greatest(ports, 20), coalesce((
      SELECT min(next.first_port) FROM hosts AS next
      WHERE next.state <> 'destroyed' AND next.first_port > hosts.first_port
    ) - first_port, 20)) WHERE state <> 'destroyed';
    UPDATE hosts SET port_block = ports WHERE port_block < ports;
    ALTER TABLE hosts
      ALTER COLUMN port_block SET NOT NULL,
      ADD CONSTRAINT hosts_ports_in_block CHECK (ports <= port_block),
      DROP CONSTRAINT hosts_share_no_port,
      ADD CONSTRAINT hosts_share_no_port EXCLUDE USING gist (
        int4range(first_port, first_port + port_block) WITH &&
      ) WHERE (state <> 'destroyed');
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts
      DROP CONSTRAINT hosts_share_no_port,
      DROP CONSTRAINT hosts_ports_in_block,
      ADD CONSTRAINT hosts_share_no_port EXCLUDE USING gist (
        int4range(first_port, first_port + ports) WITH &&
      ) WHERE (state <> 'destroyed'),
      DROP COLUMN port_block;
    ALTER TABLE slots DROP COLUMN rests_until, DROP COLUMN former_tenant_id;
  `);
}
