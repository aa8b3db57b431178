import type { Knex } from 'knex';

/** Constraints and their indexes that carry the old name of a table or column: [table by its new name, old, new]. */
const constraints = [
  ['leadership_leases', 'keepers_pkey', 'leadership_leases_pkey'],
  ['early_deletes', 'unseen_deletes_pkey', 'early_deletes_pkey'],
  ['early_deletes', 'unseen_deletes_osb_id_check', 'early_deletes_osb_id_check'],
  ['early_deletes', 'unseen_deletes_platform_id_fkey', 'early_deletes_platform_id_fkey'],
  ['host_checks', 'host_checks_alterations_check', 'host_checks_drift_check'],
  ['hosts', 'hosts_made_from_check', 'hosts_first_started_from_check'],
  ['hosts', 'hosts_owner_is_whole', 'hosts_owner_is_complete'],
  ['presences', 'presences_role_check', 'presences_process_check'],
  ['certificate_authorities', 'authorities_pkey', 'certificate_authorities_pkey'],
  ['certificate_authorities', 'authorities_name_check', 'certificate_authorities_name_check'],
  ['certificate_authorities', 'authorities_state_check', 'certificate_authorities_state_check'],
  ['certificate_authorities', 'authorities_keys', 'certificate_authorities_keys'],
] as const;

const renameConstraint = (table: string, from: string, to: string) =>
  `ALTER TABLE ${table} RENAME CONSTRAINT ${from} TO ${to};`;

/**
 * Renames tables, columns and states to the words of docs/glossary.md: one word for one thing. No row changes its
 * meaning, and rows of `audit` are left as they are.
 */
export async function up(knex: Knex): Promise<void> {
  const { rows } = await knex.raw<{ rows: { schema: string }[] }>(
    'SELECT quote_ident(current_schema()) AS schema',
  );
  await knex.raw(`
    ALTER TABLE keepers RENAME TO leadership_leases;
    ALTER TABLE leadership_leases RENAME COLUMN owner TO holder;
    ALTER TABLE unseen_deletes RENAME TO early_deletes;
    ALTER TABLE host_checks RENAME COLUMN alterations TO drift;
    ALTER TABLE hosts RENAME COLUMN made_from TO first_started_from;
    ALTER TABLE presences RENAME COLUMN role TO process;
    ALTER TABLE presences RENAME COLUMN holds TO announced;
    ALTER TABLE authorities RENAME TO certificate_authorities;
    ${constraints.map(([table, before, after]) => renameConstraint(table, before, after)).join('\n    ')}
    ALTER INDEX authorities_one_of_a_kind RENAME TO certificate_authorities_one_per_state;
    ALTER INDEX hosts_growing RENAME TO hosts_with_reserve;
    ALTER TABLE bindings RENAME COLUMN client_authority TO client_ca;
    ALTER TABLE bindings RENAME COLUMN server_authority TO server_ca;
    ALTER TABLE certificate_requests RENAME COLUMN authority TO ca;
    DROP TRIGGER audit_authority ON certificate_authorities;
    DROP FUNCTION audit_authority;
    CREATE FUNCTION audit_ca() RETURNS trigger
      LANGUAGE plpgsql SECURITY DEFINER SET search_path = ${rows[0]?.schema ?? 'public'}, pg_temp AS $$
    BEGIN
      INSERT INTO audit (actor, action, outcome, detail)
      VALUES ('berth', 'ca-' || NEW.state, 'succeeded', json_build_object('name', NEW.name, 'ca', NEW.id));
      RETURN NULL;
    END $$;
    REVOKE ALL ON FUNCTION audit_ca FROM PUBLIC;
    CREATE TRIGGER audit_ca AFTER INSERT OR UPDATE OF state ON certificate_authorities
      FOR EACH ROW EXECUTE FUNCTION audit_ca();

    DROP TRIGGER host_keeps_its_tenant ON hosts;
    DROP FUNCTION host_keeps_its_tenant;
    DROP INDEX hosts_pooled, hosts_planned, hosts_on_since;
    ALTER TABLE hosts
      DROP CONSTRAINT hosts_state_check,
      DROP CONSTRAINT hosts_pool_is_nobodys,
      DROP CONSTRAINT hosts_power_check;
    ALTER TABLE power_requests DROP CONSTRAINT power_requests_power_check;
    UPDATE hosts SET state = CASE state
      WHEN 'pooling' THEN 'parking' WHEN 'pooled' THEN 'parked' WHEN 'planned' THEN 'creating' ELSE state END;
    UPDATE hosts SET power = 'running' WHERE power = 'on';
    UPDATE power_requests SET power = 'running' WHERE power = 'on';
    ALTER TABLE hosts
      ALTER COLUMN power SET DEFAULT 'running',
      ADD CONSTRAINT hosts_state_check
        CHECK (state IN ('parking', 'parked', 'creating', 'running', 'destroyed')),
      ADD CONSTRAINT hosts_parked_has_no_owner
        CHECK (state = 'destroyed' OR (state IN ('parking', 'parked')) = (tenant_id IS NULL)),
      ADD CONSTRAINT hosts_power_check CHECK (power IN ('running', 'paused', 'suspended'));
    ALTER TABLE power_requests
      ADD CONSTRAINT power_requests_power_check CHECK (power IN ('running', 'paused', 'suspended'));
    CREATE INDEX hosts_parked ON hosts (plan_name, created_at) WHERE state IN ('parking', 'parked');
    CREATE INDEX hosts_creating ON hosts (id) WHERE state = 'creating';
    CREATE INDEX hosts_running_since ON hosts (power_since) WHERE state = 'running' AND power = 'running';

    CREATE FUNCTION enforce_host_owner() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.tenant_id IS DISTINCT FROM OLD.tenant_id OR NEW.instance_id IS DISTINCT FROM OLD.instance_id THEN
        IF OLD.tenant_id IS NOT NULL OR OLD.instance_id IS NOT NULL THEN
          RAISE EXCEPTION 'host % has served a tenant and is never given to another', OLD.id;
        END IF;
        IF OLD.state <> 'parked' THEN
          RAISE EXCEPTION 'host % is not parked in the pool', OLD.id;
        END IF;
      END IF;
      IF OLD.state = 'destroyed' AND NEW.state <> 'destroyed' THEN
        RAISE EXCEPTION 'host % is destroyed and is never used again', OLD.id;
      END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER enforce_host_owner BEFORE UPDATE ON hosts
      FOR EACH ROW EXECUTE FUNCTION enforce_host_owner();
  `);
}

export async function down(knex: Knex): Promise<void> {
  const { rows } = await knex.raw<{ rows: { schema: string }[] }>(
    'SELECT quote_ident(current_schema()) AS schema',
  );
  await knex.raw(`
    DROP TRIGGER enforce_host_owner ON hosts;
    DROP FUNCTION enforce_host_owner;
    DROP INDEX hosts_parked, hosts_creating, hosts_running_since;
    ALTER TABLE hosts
      DROP CONSTRAINT hosts_state_check,
      DROP CONSTRAINT hosts_parked_has_no_owner,
      DROP CONSTRAINT hosts_power_check;
    ALTER TABLE power_requests DROP CONSTRAINT power_requests_power_check;
    UPDATE hosts SET state = CASE state
      WHEN 'parking' THEN 'pooling' WHEN 'parked' THEN 'pooled' WHEN 'creating' THEN 'planned' ELSE state END;
    UPDATE hosts SET power = 'on' WHERE power = 'running';
    UPDATE power_requests SET power = 'on' WHERE power = 'running';
    ALTER TABLE hosts
      ALTER COLUMN power SET DEFAULT 'on',
      ADD CONSTRAINT hosts_state_check
        CHECK (state IN ('pooling', 'pooled', 'planned', 'running', 'destroyed')),
      ADD CONSTRAINT hosts_pool_is_nobodys
        CHECK (state = 'destroyed' OR (state IN ('pooling', 'pooled')) = (tenant_id IS NULL)),
      ADD CONSTRAINT hosts_power_check CHECK (power IN ('on', 'paused', 'suspended'));
    ALTER TABLE power_requests
      ADD CONSTRAINT power_requests_power_check CHECK (power IN ('on', 'paused', 'suspended'));
    CREATE INDEX hosts_pooled ON hosts (plan_name, created_at) WHERE state IN ('pooling', 'pooled');
    CREATE INDEX hosts_planned ON hosts (id) WHERE state = 'planned';
    CREATE INDEX hosts_on_since ON hosts (power_since) WHERE state = 'running' AND power = 'on';

    CREATE FUNCTION host_keeps_its_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
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
    CREATE TRIGGER host_keeps_its_tenant BEFORE UPDATE ON hosts
      FOR EACH ROW EXECUTE FUNCTION host_keeps_its_tenant();

    DROP TRIGGER audit_ca ON certificate_authorities;
    DROP FUNCTION audit_ca;
    CREATE FUNCTION audit_authority() RETURNS trigger
      LANGUAGE plpgsql SECURITY DEFINER SET search_path = ${rows[0]?.schema ?? 'public'}, pg_temp AS $$
    BEGIN
      INSERT INTO audit (actor, action, outcome, detail)
      VALUES ('berth', 'authority-' || NEW.state, 'succeeded',
        json_build_object('name', NEW.name, 'authority', NEW.id));
      RETURN NULL;
    END $$;
    REVOKE ALL ON FUNCTION audit_authority FROM PUBLIC;
    CREATE TRIGGER audit_authority AFTER INSERT OR UPDATE OF state ON certificate_authorities
      FOR EACH ROW EXECUTE FUNCTION audit_authority();
    ALTER TABLE certificate_requests RENAME COLUMN ca TO authority;
    ALTER TABLE bindings RENAME COLUMN client_ca TO client_authority;
    ALTER TABLE bindings RENAME COLUMN server_ca TO server_authority;
    ALTER INDEX hosts_with_reserve RENAME TO hosts_growing;
    ALTER INDEX certificate_authorities_one_per_state RENAME TO authorities_one_of_a_kind;
    ${constraints.map(([table, before, after]) => renameConstraint(table, after, before)).join('\n    ')}
    ALTER TABLE certificate_authorities RENAME TO authorities;
    ALTER TABLE presences RENAME COLUMN announced TO holds;
    ALTER TABLE presences RENAME COLUMN process TO role;
    ALTER TABLE hosts RENAME COLUMN first_started_from TO made_from;
    ALTER TABLE host_checks RENAME COLUMN drift TO alterations;
    ALTER TABLE early_deletes RENAME TO unseen_deletes;
    ALTER TABLE leadership_leases RENAME COLUMN holder TO owner;
    ALTER TABLE leadership_leases RENAME TO keepers;
  `);
}
