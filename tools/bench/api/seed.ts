import { createHash, randomBytes } from 'node:crypto';
import type { Knex } from 'knex';

export interface Population {
  readonly instances: number;
  readonly bindingsPerInstance: number;
}

/** Values for the seeded rows. */
export interface SeedOptions {
  readonly platformId: string;
  readonly serviceId: string;
  readonly planId: string;
  readonly planName: string;
  /** A client certificate, PEM, as long as all others are. */
  readonly certificate: string;
  /** Bytes of a binding's sealed credentials. */
  readonly sealedBytes: number;
  /** Slots from here on are taken by the seeded hosts; those before are the api's to give. */
  readonly firstSlot: number;
}

/** All sealed credentials are slices of this number of random bytes. */
const noiseBytes = 1024 * 1024;

/** Instances of one org. */
const instancesPerOrg = 10;

/** The ids that platforms use for the seeded rows, by number; the SQL below makes the same. */
const guid = (text: string) => {
  const hex = createHash('md5').update(text).digest('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
};
export const seededInstance = (number: number) => guid(`osb${number}`);
export const seededBinding = (instance: number, binding: number) => guid(`osb${instance}/${binding}`);
export const seededOrg = (number: number) => guid(`org${Math.floor(number / instancesPerOrg)}`);

/**
 * Fills the database with ready instances, each with its tenant, host, slot, finished operation and live
 * bindings, and lets Postgres count them. Secrets are random bytes of the right length, which compress as little
 * as real ones; nothing opens them. Ports are numbers only: a node has fewer ports than 100,000 hosts need.
 */
export async function seed(database: Knex, options: SeedOptions, population: Population): Promise<void> {
  const { instances, bindingsPerInstance } = population;
  // Nothing about uuids made of a number is random, but indexes on random ones are what is measured: hence md5.
  const id = (kind: string, number: string) => `md5('${kind}' || ${number})::uuid`;
  const sealed = `substr(noise.bytes, 1 + (i * 7919 + b) % ${noiseBytes - options.sealedBytes}, :sealedBytes::integer)`;
  const statements = [
    `INSERT INTO tenants (id, platform_id, key)
     SELECT ${id('tenant', 'i')}, :platformId::uuid, tenant_key(i) FROM generate_series(0, (:instances::integer - 1) / ${instancesPerOrg}) i`,
    `INSERT INTO instances (id, platform_id, tenant_id, osb_id, service_id, plan_id, parameters, context, state)
     SELECT ${id('instance', 'i')}, :platformId::uuid, ${id('tenant', `(i / ${instancesPerOrg})`)}, instance_guid(i), :serviceId, :planId,
       '{}', json_build_object('platform', 'cloudfoundry', 'organization_guid', org_guid(i / ${instancesPerOrg}),
         'space_guid', md5('space' || i), 'organization_name', 'org ' || i, 'space_name', 'space ' || i,
         'instance_name', 'host ' || i), 'ready'
     FROM generate_series(0, :instances::integer - 1) i`,
    `INSERT INTO slots (slot, host_id) SELECT :firstSlot::integer + i, ${id('host', 'i')} FROM generate_series(0, :instances::integer - 1) i`,
    `INSERT INTO hosts (id, instance_id, tenant_id, plan_name, slot, vcpus, memory_mib, disk_gib, first_port, ports, port_block,
       egress, state, started_from, engine_host, engine_port)
     SELECT ${id('host', 'i')}, ${id('instance', 'i')}, ${id('tenant', `(i / ${instancesPerOrg})`)}, :planName, :firstSlot::integer + i, 1, 768, 4,
       100000 + i * 20, 10, 20, '{"kind": "internet"}', 'running', 'template', '10.214.0.2', 2375
     FROM generate_series(0, :instances::integer - 1) i`,
    `INSERT INTO operations (id, kind, instance_id, state, step, description, deadline, created_at, finished_at)
     SELECT ${id('operation', 'i')}, 'provision', ${id('instance', 'i')}, 'succeeded', 'engine', 'The container host is ready',
       now() + interval '1 hour', now() - interval '1 minute', now() FROM generate_series(0, :instances::integer - 1) i`,
    `INSERT INTO bindings (id, osb_id, instance_id, tenant_id, serial, certificate, sealed_credentials, app_guid,
       parameters, state, client_ca, server_ca, created_at, expires_at)
     SELECT ${id('binding', `i || '/' || b`)}, md5('osb' || i || '/' || b)::uuid::text, ${id('instance', 'i')},
       ${id('tenant', `(i / ${instancesPerOrg})`)}, '5' || md5(i || '/' || b), :certificate, ${sealed}, md5('app' || i), '{}',
       'live', (SELECT id FROM certificate_authorities WHERE name = 'client'), (SELECT id FROM certificate_authorities WHERE name = 'server'), now(),
       now() + interval '1 year'
     FROM generate_series(0, :instances::integer - 1) i, generate_series(1, :bindingsPerInstance::integer) b, noise`,
  ];
  await database.transaction(async (transaction) => {
    await transaction.raw(`
      CREATE FUNCTION org_guid(i integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT md5('org' || i)::uuid::text $$;
      CREATE FUNCTION tenant_key(i integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '["org","' || org_guid(i) || '"]' $$;
      CREATE FUNCTION instance_guid(i integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT md5('osb' || i)::uuid::text $$;
      CREATE TABLE noise (bytes bytea STORAGE EXTERNAL);
      -- Counts every host on the same rows, which one transaction must not do so often; they are counted below.
      ALTER TABLE hosts DISABLE TRIGGER count_host_usage`);
    await transaction('noise').insert({ bytes: randomBytes(noiseBytes) });
    for (const statement of statements) {
      await transaction.raw(statement, { ...options, instances, bindingsPerInstance });
    }
    await transaction.raw(`
      DROP FUNCTION org_guid, tenant_key, instance_guid;
      DROP TABLE noise;
      ALTER TABLE hosts ENABLE TRIGGER count_host_usage;
      DELETE FROM quota_usage;
      INSERT INTO quota_usage
        SELECT usage.scope, sum(usage.instances), sum(usage.vcpus), sum(usage.memory_mib), sum(usage.disk_gib),
          sum(usage.published_ports)
        FROM hosts, host_usage(hosts) AS usage GROUP BY usage.scope`);
  });
  // Autovacuum would do it later; query plans need the statistics now.
  await database.raw('VACUUM ANALYZE');
}
