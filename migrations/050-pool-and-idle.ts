import type { Knex } from 'knex';

/**
 * Hosts in the pool, and paused and suspended hosts.
 *
 * A host in the pool has neither instance nor tenant. It gets both in one update, once, from the state `pooled`; the
 * trigger enforces that they never change afterwards.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts
      ALTER COLUMN instance_id DROP NOT NULL,
      ALTER COLUMN tenant_id DROP NOT NULL,
      DROP CONSTRAINT hosts_state_check,
      ADD CONSTRAINT hosts_state_check
        CHECK (state IN ('pooling', 'pooled', 'planned', 'running', 'destroyed')),
      ADD CONSTRAINT hosts_owner_is_whole CHECK ((instance_id IS NULL) = (tenant_id IS NULL)),
      ADD CONSTRAINT hosts_pool_is_nobodys
        CHECK (state = 'destroyed' OR (state IN ('pooling', 'pooled')) = (tenant_id IS NULL)),
      DROP CONSTRAINT hosts_started_from_check,
      ADD CONSTRAINT hosts_started_from_check CHECK (started_from IN ('pool', 'template', 'boot')),
      -- How it was started for the first time, which decides how long its create took.
      ADD COLUMN made_from text CHECK (made_from IN ('pool', 'template', 'boot')),
      -- What to do with the host while it is not used.
      ADD COLUMN idle text NOT NULL DEFAULT 'run' CHECK (idle IN ('run', 'pause', 'suspend')),
      -- Whether its processors run. A change from 'on' is recorded before it is made, a change to 'on' after it.
      ADD COLUMN power text NOT NULL DEFAULT 'on' CHECK (power IN ('on', 'paused', 'suspended')),
      ADD COLUMN power_since timestamptz NOT NULL DEFAULT now();
    CREATE INDEX hosts_pooled ON hosts (plan_name, created_at) WHERE state IN ('pooling', 'pooled');

    CREATE OR REPLACE FUNCTION host_keeps_its_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.tenant_id IS DISTINCT FROM OLD.tenant_id OR NEW.instance_id IS DISTINCT FROM OLD.instance_id THEN
        IF OLD.tenant_id IS NOT NULL OR OLD.instance_id IS NOT NULL THEN
          RAISE EXCEPTION 'host % has served a tenant and is never given to another', OLD.id;
        END IF;
        IF OLD.state <> 'pooled' THEN
          RAISE EXCEPTION 'host % is not ready in the pool', OLD.id;
        END IF;
      END IF;
      IF OLD.state = 'destroyed' AND NEW.state <> 'destroyed' THEN
        RAISE EXCEPTION 'host % is destroyed and is never used again', OLD.id;
      END IF;
      RETURN NEW;
    END $$;

    -- The power state that a gateway or an operator requests; the worker deletes the row when it is reached.
    CREATE TABLE power_requests (
      host_id uuid PRIMARY KEY REFERENCES hosts,
      power text NOT NULL CHECK (power IN ('on', 'paused', 'suspended')),
      asked_at timestamptz(3) NOT NULL DEFAULT clock_timestamp()
    );

    -- Tasks that only one worker at a time may do.
    CREATE TABLE keepers (
      name text PRIMARY KEY,
      owner uuid NOT NULL,
      lease_until timestamptz NOT NULL
    );

    ALTER TABLE workers ADD COLUMN memory_available_mib integer;
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE workers DROP COLUMN memory_available_mib;
    DROP TABLE keepers, power_requests;
    DELETE FROM hosts WHERE tenant_id IS NULL;
    UPDATE slots SET host_id = NULL WHERE host_id IS NOT NULL AND host_id NOT IN (SELECT id FROM hosts);
    UPDATE hosts SET started_from = 'template' WHERE started_from = 'pool';
    DROP INDEX hosts_pooled;
    ALTER TABLE hosts
      DROP CONSTRAINT hosts_pool_is_nobodys,
      DROP CONSTRAINT hosts_owner_is_whole,
      DROP CONSTRAINT hosts_state_check,
      ADD CONSTRAINT hosts_state_check CHECK (state IN ('planned', 'running', 'destroyed')),
      DROP CONSTRAINT hosts_started_from_check,
      ADD CONSTRAINT hosts_started_from_check CHECK (started_from IN ('template', 'boot')),
      DROP COLUMN made_from, DROP COLUMN idle, DROP COLUMN power, DROP COLUMN power_since,
      ALTER COLUMN instance_id SET NOT NULL,
      ALTER COLUMN tenant_id SET NOT NULL;
    CREATE OR REPLACE FUNCTION host_keeps_its_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.tenant_id <> OLD.tenant_id OR NEW.instance_id <> OLD.instance_id THEN
        RAISE EXCEPTION 'host % has served a tenant and is never given to another', OLD.id;
      END IF;
      IF OLD.state = 'destroyed' AND NEW.state <> 'destroyed' THEN
        RAISE EXCEPTION 'host % is destroyed and is never used again', OLD.id;
      END IF;
      RETURN NEW;
    END $$;
  `);
}
