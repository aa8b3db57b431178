import type { Knex } from 'knex';

/**
 * The first schema. The database enforces what it can: a host's tenant is its instance's tenant (composite foreign
 * keys) and never changes (trigger); an instance has at most one operation in progress; a slot has at most one living
 * host.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    CREATE TABLE platforms (
      id uuid PRIMARY KEY,
      name text NOT NULL UNIQUE
    );

    CREATE TABLE tenants (
      id uuid PRIMARY KEY,
      platform_id uuid NOT NULL REFERENCES platforms,
      key text NOT NULL,
      UNIQUE (platform_id, key),
      UNIQUE (id, platform_id)
    );

    CREATE TABLE instances (
      id uuid PRIMARY KEY,
      platform_id uuid NOT NULL,
      tenant_id uuid NOT NULL,
      osb_id text NOT NULL CHECK (length(osb_id) BETWEEN 1 AND 255),
      service_id text NOT NULL,
      plan_id text NOT NULL,
      parameters jsonb NOT NULL,
      context jsonb NOT NULL,
      state text NOT NULL CHECK (state IN ('creating', 'ready', 'failed', 'deleting', 'deleted')),
      created_at timestamptz NOT NULL DEFAULT now(),
      updated_at timestamptz NOT NULL DEFAULT now(),
      FOREIGN KEY (tenant_id, platform_id) REFERENCES tenants (id, platform_id),
      UNIQUE (platform_id, osb_id),
      UNIQUE (id, tenant_id)
    );

    CREATE TABLE unseen_deletes (
      platform_id uuid NOT NULL REFERENCES platforms,
      osb_id text NOT NULL CHECK (length(osb_id) BETWEEN 1 AND 255),
      deleted_at timestamptz NOT NULL DEFAULT now(),
      PRIMARY KEY (platform_id, osb_id)
    );

    CREATE TABLE slots (
      slot integer PRIMARY KEY CHECK (slot > 0),
      host_id uuid UNIQUE
    );

    CREATE TABLE hosts (
      id uuid PRIMARY KEY,
      instance_id uuid NOT NULL,
      tenant_id uuid NOT NULL,
      plan_name text NOT NULL,
      slot integer NOT NULL REFERENCES slots,
      vcpus integer NOT NULL,
      memory_mib integer NOT NULL,
      disk_gib integer NOT NULL,
      first_port integer NOT NULL,
      ports integer NOT NULL,
      egress jsonb NOT NULL,
      state text NOT NULL CHECK (state IN ('planned', 'running', 'destroyed')),
      started_from text CHECK (started_from IN ('template', 'boot')),
      engine_host text,
      engine_port integer,
      created_at timestamptz NOT NULL DEFAULT now(),
      updated_at timestamptz NOT NULL DEFAULT now(),
      FOREIGN KEY (instance_id, tenant_id) REFERENCES instances (id, tenant_id),
      UNIQUE (id, instance_id, tenant_id)
    );
    CREATE UNIQUE INDEX hosts_one_living_per_instance ON hosts (instance_id) WHERE state <> 'destroyed';
    CREATE UNIQUE INDEX hosts_one_living_per_slot ON hosts (slot) WHERE state <> 'destroyed';
    CREATE INDEX hosts_living ON hosts (id) WHERE state <> 'destroyed';

    CREATE FUNCTION host_keeps_its_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.tenant_id <> OLD.tenant_id OR NEW.instance_id <> OLD.instance_id THEN
        RAISE EXCEPTION 'host % has served a tenant and is never given to another', OLD.id;
      END IF;
      IF OLD.state = 'destroyed' AND NEW.state <> 'destroyed' THEN
        RAISE EXCEPTION 'host % is destroyed and is never used again', OLD.id;
      END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER host_keeps_its_tenant BEFORE UPDATE ON hosts
      FOR EACH ROW EXECUTE FUNCTION host_keeps_its_tenant();

    CREATE TABLE bindings (
      id uuid PRIMARY KEY,
      osb_id text NOT NULL CHECK (length(osb_id) BETWEEN 1 AND 255),
      instance_id uuid NOT NULL,
      tenant_id uuid NOT NULL,
      serial text NOT NULL UNIQUE,
      certificate text NOT NULL,
      sealed_credentials bytea,
      app_guid text,
      parameters jsonb NOT NULL,
      state text NOT NULL CHECK (state IN ('live', 'revoked')),
      created_at timestamptz NOT NULL,
      expires_at timestamptz NOT NULL,
      revoked_at timestamptz,
      settled_at timestamptz,
      FOREIGN KEY (instance_id, tenant_id) REFERENCES instances (id, tenant_id),
      UNIQUE (instance_id, osb_id),
      CHECK ((state = 'live') = (sealed_credentials IS NOT NULL)),
      CHECK ((state = 'revoked') = (revoked_at IS NOT NULL))
    );
    CREATE INDEX bindings_live ON bindings (instance_id) WHERE state = 'live';

    CREATE TABLE operations (
      id uuid PRIMARY KEY,
      kind text NOT NULL CHECK (kind IN ('provision', 'deprovision', 'restart')),
      instance_id uuid NOT NULL REFERENCES instances,
      state text NOT NULL CHECK (state IN ('in progress', 'succeeded', 'failed')),
      step text NOT NULL,
      description text NOT NULL,
      failure text,
      attempts integer NOT NULL DEFAULT 0,
      fence bigint NOT NULL DEFAULT 0,
      lease_owner text,
      lease_until timestamptz,
      run_after timestamptz NOT NULL DEFAULT now(),
      deadline timestamptz NOT NULL,
      created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      finished_at timestamptz
    );
    CREATE UNIQUE INDEX operations_one_in_progress ON operations (instance_id) WHERE state = 'in progress';
    CREATE INDEX operations_due ON operations (run_after) WHERE state = 'in progress';
    CREATE INDEX operations_of_instance ON operations (instance_id, created_at);

    CREATE TABLE authorities (
      name text PRIMARY KEY CHECK (name IN ('client', 'server')),
      certificate text NOT NULL,
      sealed_key bytea NOT NULL,
      created_at timestamptz NOT NULL DEFAULT now()
    );

    CREATE TABLE gateways (
      id uuid PRIMARY KEY,
      lease_until timestamptz NOT NULL,
      connections integer NOT NULL DEFAULT 0,
      started_at timestamptz NOT NULL DEFAULT now()
    );

    CREATE TABLE workers (
      name text PRIMARY KEY,
      hypervisor text NOT NULL,
      -- Names of the plans whose hosts are restored from a template; all others boot cold.
      templates text[] NOT NULL,
      seen_at timestamptz NOT NULL
    );

    -- A gateway's key never leaves its process: it requests a certificate, and the api signs it.
    CREATE TABLE certificate_requests (
      id uuid PRIMARY KEY,
      request text NOT NULL CHECK (length(request) < 8192),
      certificate text,
      created_at timestamptz NOT NULL DEFAULT now()
    );

    CREATE TABLE revocation_acknowledgements (
      binding_id uuid NOT NULL REFERENCES bindings,
      gateway_id uuid NOT NULL,
      PRIMARY KEY (binding_id, gateway_id)
    );
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    DROP TABLE revocation_acknowledgements, certificate_requests, workers, gateways, authorities, operations, bindings, hosts, slots,
      unseen_deletes, instances, tenants, platforms;
    DROP FUNCTION host_keeps_its_tenant;
  `);
}
