import type { Knex } from 'knex';

/**
 * The audit trail. Rows are inserted and never changed: the database roles have no right to, and a trigger refuses it
 * to the owner too, except through `audit_forget`, which implements the retention.
 *
 * Triggers record changes of certificates and operations in the same transaction, so every change has its row.
 * They run as the owner, so `pg_temp` comes last in their search path (PostgreSQL manual, CREATE FUNCTION,
 * "Writing SECURITY DEFINER Functions Safely").
 */
export async function up(knex: Knex): Promise<void> {
  const { rows } = await knex.raw<{ rows: { schema: string }[] }>(
    'SELECT quote_ident(current_schema()) AS schema',
  );
  const asOwner = `LANGUAGE plpgsql SECURITY DEFINER SET search_path = ${rows[0]?.schema ?? 'public'}, pg_temp`;
  await knex.raw(`
    CREATE TABLE audit (
      id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      at timestamptz NOT NULL DEFAULT clock_timestamp(),
      -- The database role whose process wrote the row. No role may write this column or the ones above.
      recorded_by text NOT NULL DEFAULT session_user,
      actor text NOT NULL CHECK (actor IN ('platform', 'operator', 'berth')),
      platform text CHECK (length(platform) <= 255),
      -- json and not jsonb: what a platform sends may contain a NUL, which jsonb refuses.
      identity json CHECK (octet_length(identity::text) <= 4096),
      action text NOT NULL CHECK (length(action) <= 255),
      instance_id text CHECK (length(instance_id) <= 255),
      binding_id text CHECK (length(binding_id) <= 255),
      remote_address text CHECK (length(remote_address) <= 255),
      request_id text CHECK (length(request_id) <= 255),
      status integer,
      outcome text NOT NULL CHECK (outcome IN ('succeeded', 'accepted', 'refused', 'failed')),
      error text CHECK (length(error) <= 1000),
      detail json CHECK (octet_length(detail::text) <= 4096)
    );
    CREATE INDEX audit_at ON audit (at);
    CREATE INDEX audit_of_instance ON audit (instance_id, at) WHERE instance_id IS NOT NULL;

    CREATE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF TG_OP = 'DELETE' THEN
        IF OLD.at < nullif(current_setting('berth.audit_forgets_before', true), '')::timestamptz THEN
          RETURN OLD;
        END IF;
      END IF;
      RAISE EXCEPTION 'the audit trail is only added to; audit_forget() ends its oldest rows';
    END $$;
    CREATE TRIGGER audit_is_only_added_to BEFORE UPDATE OR DELETE ON audit
      FOR EACH ROW EXECUTE FUNCTION audit_is_only_added_to();
    CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON audit
      FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_added_to();

    -- The only way to delete rows: all before a moment at least 30 days ago. It inserts a row about it.
    CREATE FUNCTION audit_forget(before timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE forgotten bigint;
    BEGIN
      IF before > clock_timestamp() - interval '30 days' THEN
        RAISE EXCEPTION 'audit rows are kept for 30 days at least';
      END IF;
      PERFORM set_config('berth.audit_forgets_before', before::text, true);
      DELETE FROM audit WHERE at < before;
      GET DIAGNOSTICS forgotten = ROW_COUNT;
      PERFORM set_config('berth.audit_forgets_before', '', true);
      IF forgotten > 0 THEN
        INSERT INTO audit (actor, action, outcome, detail)
        VALUES ('berth', 'audit-forget', 'succeeded', json_build_object('rows', forgotten, 'before', before));
      END IF;
      RETURN forgotten;
    END $$;
    REVOKE ALL ON FUNCTION audit_forget FROM PUBLIC;

    CREATE FUNCTION audit_certificate() RETURNS trigger ${asOwner} AS $$
    BEGIN
      INSERT INTO audit (actor, platform, action, instance_id, binding_id, outcome, detail)
      SELECT 'berth', platforms.name, TG_ARGV[0], instances.osb_id, NEW.osb_id, 'succeeded',
        json_build_object('serial', NEW.serial, 'expires_at', NEW.expires_at)
      FROM instances JOIN platforms ON platforms.id = instances.platform_id WHERE instances.id = NEW.instance_id;
      RETURN NULL;
    END $$;
    REVOKE ALL ON FUNCTION audit_certificate FROM PUBLIC;
    CREATE TRIGGER audit_issue AFTER INSERT ON bindings
      FOR EACH ROW EXECUTE FUNCTION audit_certificate('certificate-issue');
    CREATE TRIGGER audit_revoke AFTER UPDATE OF state ON bindings
      FOR EACH ROW WHEN (OLD.state = 'live' AND NEW.state <> 'live')
      EXECUTE FUNCTION audit_certificate('certificate-revoke');

    CREATE FUNCTION audit_operation() RETURNS trigger ${asOwner} AS $$
    BEGIN
      INSERT INTO audit (actor, platform, action, instance_id, outcome, error, detail)
      SELECT 'berth', platforms.name, NEW.kind || '-end', instances.osb_id, NEW.state,
        CASE WHEN NEW.state = 'failed' THEN left(NEW.description, 1000) END,
        json_build_object('operation', NEW.id, 'worker', NEW.lease_owner)
      FROM instances JOIN platforms ON platforms.id = instances.platform_id WHERE instances.id = NEW.instance_id;
      RETURN NULL;
    END $$;
    REVOKE ALL ON FUNCTION audit_operation FROM PUBLIC;
    CREATE TRIGGER audit_end AFTER UPDATE OF state ON operations
      FOR EACH ROW WHEN (OLD.state = 'in progress' AND NEW.state <> 'in progress')
      EXECUTE FUNCTION audit_operation();

    CREATE FUNCTION audit_server_certificate() RETURNS trigger ${asOwner} AS $$
    BEGIN
      INSERT INTO audit (actor, action, outcome, detail)
      VALUES ('berth', 'server-certificate-issue', 'succeeded', json_build_object('request', NEW.id));
      RETURN NULL;
    END $$;
    REVOKE ALL ON FUNCTION audit_server_certificate FROM PUBLIC;
    CREATE TRIGGER audit_server_certificate AFTER UPDATE OF certificate ON certificate_requests
      FOR EACH ROW WHEN (OLD.certificate IS NULL AND NEW.certificate IS NOT NULL)
      EXECUTE FUNCTION audit_server_certificate();
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    DROP TRIGGER audit_issue ON bindings;
    DROP TRIGGER audit_revoke ON bindings;
    DROP TRIGGER audit_end ON operations;
    DROP TRIGGER audit_server_certificate ON certificate_requests;
    DROP TABLE audit;
    DROP FUNCTION audit_is_only_added_to, audit_forget, audit_certificate, audit_operation, audit_server_certificate;
  `);
}
