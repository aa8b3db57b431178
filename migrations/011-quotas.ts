import type { Knex } from 'knex';

/**
 * Usage counts, maintained by a trigger on hosts: checking a quota reads at most four rows, however many hosts there
 * are. A transaction that inserts a host locks the counts that it changes until it commits, so two creates can't both
 * take the last place.
 *
 * What an update adds is reserved on the host's row when it is accepted, and released when its operation ends.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    CREATE TABLE quota_usage (
      -- total, plan:NAME, tenant:ID, or tenant:ID/plan:NAME
      scope text PRIMARY KEY,
      instances integer NOT NULL,
      vcpus integer NOT NULL,
      memory_mib bigint NOT NULL,
      disk_gib bigint NOT NULL,
      published_ports integer NOT NULL
    ) WITH (fillfactor = 50);

    ALTER TABLE hosts
      ADD COLUMN reserved_plan text,
      ADD COLUMN reserved_vcpus integer NOT NULL DEFAULT 0 CHECK (reserved_vcpus >= 0),
      ADD COLUMN reserved_memory_mib integer NOT NULL DEFAULT 0 CHECK (reserved_memory_mib >= 0),
      ADD COLUMN reserved_disk_gib integer NOT NULL DEFAULT 0 CHECK (reserved_disk_gib >= 0),
      ADD COLUMN reserved_ports integer NOT NULL DEFAULT 0 CHECK (reserved_ports >= 0),
      -- Port blocks differ in size after a change of the catalog; even then no two living hosts share a port.
      ADD CONSTRAINT hosts_share_no_port EXCLUDE USING gist (
        int4range(first_port, first_port + ports) WITH &&
      ) WHERE (state <> 'destroyed');

    CREATE FUNCTION host_usage(h hosts) RETURNS SETOF quota_usage LANGUAGE sql IMMUTABLE AS $$
      SELECT scope, 1, h.vcpus + h.reserved_vcpus, (h.memory_mib + h.reserved_memory_mib)::bigint,
        (h.disk_gib + h.reserved_disk_gib)::bigint, h.ports + h.reserved_ports
      FROM (
        SELECT 'total' AS scope
        UNION ALL SELECT 'tenant:' || h.tenant_id
        UNION SELECT prefix || 'plan:' || plan
          FROM unnest(ARRAY['', 'tenant:' || h.tenant_id || '/']) AS prefix,
            unnest(ARRAY[h.plan_name, coalesce(h.reserved_plan, h.plan_name)]) AS plan
      ) AS scopes
      WHERE h.instance_id IS NOT NULL AND h.state <> 'destroyed'
    $$;

    CREATE FUNCTION count_host_usage() RETURNS trigger LANGUAGE plpgsql
      SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
      INSERT INTO quota_usage AS counted
      SELECT scope, sum(instances), sum(vcpus), sum(memory_mib), sum(disk_gib), sum(published_ports)
      FROM (
        SELECT * FROM host_usage(NEW)
        UNION ALL
        SELECT scope, -instances, -vcpus, -memory_mib, -disk_gib, -published_ports FROM host_usage(OLD)
      ) AS change
      GROUP BY scope
      HAVING sum(instances) <> 0 OR sum(vcpus) <> 0 OR sum(memory_mib) <> 0 OR sum(disk_gib) <> 0
        OR sum(published_ports) <> 0
      -- Always in the same order, or two transactions could wait for each other.
      ORDER BY scope
      ON CONFLICT (scope) DO UPDATE SET
        instances = counted.instances + EXCLUDED.instances,
        vcpus = counted.vcpus + EXCLUDED.vcpus,
        memory_mib = counted.memory_mib + EXCLUDED.memory_mib,
        disk_gib = counted.disk_gib + EXCLUDED.disk_gib,
        published_ports = counted.published_ports + EXCLUDED.published_ports;
      RETURN NULL;
    END $$;
    CREATE TRIGGER count_host_usage AFTER INSERT OR UPDATE ON hosts
      FOR EACH ROW EXECUTE FUNCTION count_host_usage();

    INSERT INTO quota_usage
      SELECT usage.scope, sum(usage.instances), sum(usage.vcpus), sum(usage.memory_mib), sum(usage.disk_gib),
        sum(usage.published_ports)
      FROM hosts, host_usage(hosts) AS usage GROUP BY usage.scope;

    CREATE FUNCTION release_reservation() RETURNS trigger LANGUAGE plpgsql
      SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
      UPDATE hosts SET reserved_plan = NULL, reserved_vcpus = 0, reserved_memory_mib = 0, reserved_disk_gib = 0,
        reserved_ports = 0
      WHERE instance_id = NEW.instance_id AND reserved_plan IS NOT NULL;
      RETURN NULL;
    END $$;
    CREATE TRIGGER release_reservation AFTER UPDATE OF state ON operations
      FOR EACH ROW WHEN (OLD.state = 'in progress' AND NEW.state <> 'in progress')
      EXECUTE FUNCTION release_reservation();
    REVOKE EXECUTE ON FUNCTION count_host_usage, release_reservation FROM PUBLIC;
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    DROP TRIGGER release_reservation ON operations;
    DROP TRIGGER count_host_usage ON hosts;
    DROP FUNCTION release_reservation, count_host_usage, host_usage;
    ALTER TABLE hosts DROP CONSTRAINT hosts_share_no_port, DROP COLUMN reserved_plan, DROP COLUMN reserved_vcpus,
      DROP COLUMN reserved_memory_mib, DROP COLUMN reserved_disk_gib, DROP COLUMN reserved_ports;
    DROP TABLE quota_usage;
  `);
}
