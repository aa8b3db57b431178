import type { Knex } from 'knex';

/**
 * Rotation of CAs. `next` is trusted, and signs for no app yet; `current` signs; `retiring` signs nothing more and is
 * trusted while a live certificate of it exists; `retired` is not trusted. A binding records which client CA signed its
 * certificate, and which server CA its app trusts. No foreign keys: every bind would lock the CA's one row, and CAs are
 * never deleted.
 */
export async function up(knex: Knex): Promise<void> {
  const { rows } = await knex.raw<{ rows: { schema: string }[] }>(
    'SELECT quote_ident(current_schema()) AS schema',
  );
  await knex.raw(`
    ALTER TABLE authorities
      ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid(),
      ADD COLUMN state text NOT NULL DEFAULT 'current' CHECK (state IN ('next', 'current', 'retiring', 'retired')),
      ADD COLUMN since timestamptz NOT NULL DEFAULT clock_timestamp(),
      ADD COLUMN predecessor uuid,
      -- A certificate for the same key, signed by the predecessor, for apps that trust only the predecessor.
      ADD COLUMN cross_certificate text,
      ALTER COLUMN sealed_key DROP NOT NULL,
      DROP CONSTRAINT authorities_pkey,
      ADD PRIMARY KEY (id),
      -- A key is deleted as soon as it signs nothing more.
      ADD CONSTRAINT authorities_keys CHECK ((state IN ('next', 'current')) = (sealed_key IS NOT NULL));
    ALTER TABLE authorities ALTER COLUMN state DROP DEFAULT;
    CREATE UNIQUE INDEX authorities_one_of_a_kind ON authorities (name, state) WHERE state IN ('next', 'current');

    ALTER TABLE bindings ADD COLUMN client_authority uuid, ADD COLUMN server_authority uuid;
    UPDATE bindings SET
      client_authority = (SELECT id FROM authorities WHERE name = 'client'),
      server_authority = (SELECT id FROM authorities WHERE name = 'server');
    ALTER TABLE bindings ALTER COLUMN client_authority SET NOT NULL, ALTER COLUMN server_authority SET NOT NULL;

    ALTER TABLE certificate_requests ADD COLUMN authority uuid;

    CREATE FUNCTION audit_authority() RETURNS trigger
      LANGUAGE plpgsql SECURITY DEFINER SET search_path = ${rows[0]?.schema ?? 'public'}, pg_temp AS $$
    BEGIN
      INSERT INTO audit (actor, action, outcome, detail)
      VALUES ('berth', 'authority-' || NEW.state, 'succeeded',
        json_build_object('name', NEW.name, 'authority', NEW.id));
      RETURN NULL;
    END $$;
    REVOKE ALL ON FUNCTION audit_authority FROM PUBLIC;
    CREATE TRIGGER audit_authority AFTER INSERT OR UPDATE OF state ON authorities
      FOR EACH ROW EXECUTE FUNCTION audit_authority();
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    DROP TRIGGER audit_authority ON authorities;
    DROP FUNCTION audit_authority;
    ALTER TABLE certificate_requests DROP COLUMN authority;
    ALTER TABLE bindings DROP COLUMN client_authority, DROP COLUMN server_authority;
    DELETE FROM authorities WHERE state <> 'current';
    DROP INDEX authorities_one_of_a_kind;
    ALTER TABLE authorities
      DROP CONSTRAINT authorities_keys, DROP CONSTRAINT authorities_pkey, ADD PRIMARY KEY (name),
      DROP COLUMN id, DROP COLUMN state, DROP COLUMN since, DROP COLUMN predecessor, DROP COLUMN cross_certificate,
      ALTER COLUMN sealed_key SET NOT NULL;
  `);
}
