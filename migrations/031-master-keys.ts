import type { Knex } from 'knex';

/**
 * Which master key secrets are sealed with; the keys themselves are in files. And which keys each process has loaded,
 * so that nothing is sealed with a key that another api can't open yet.
 */
export async function up(knex: Knex): Promise<void> {
  const { rows } = await knex.raw<{ rows: { schema: string }[] }>(
    'SELECT quote_ident(current_schema()) AS schema',
  );
  await knex.raw(`
    CREATE TABLE master_keys (
      id text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{16}$'),
      -- Sealed with from now on; still needed for what was sealed before; needed for nothing any more.
      state text NOT NULL CHECK (state IN ('current', 'retiring', 'retired')),
      since timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE UNIQUE INDEX master_keys_one_current ON master_keys (state) WHERE state = 'current';
    -- Sealed values of earlier versions have the key's id in their header (src/secrets/envelope.ts).
    INSERT INTO master_keys (id, state)
      SELECT encode(substring(sealed_key FROM 2 FOR 8), 'hex'), 'current' FROM authorities LIMIT 1;

    CREATE TABLE presences (
      id uuid PRIMARY KEY,
      role text NOT NULL CHECK (role IN ('api', 'gateway')),
      holds text[] NOT NULL,
      seen_at timestamptz NOT NULL
    );

    CREATE FUNCTION audit_master_key() RETURNS trigger
      LANGUAGE plpgsql SECURITY DEFINER SET search_path = ${rows[0]?.schema ?? 'public'}, pg_temp AS $$
    BEGIN
      INSERT INTO audit (actor, action, outcome, detail)
      VALUES ('berth', 'master-key-' || NEW.state, 'succeeded', json_build_object('key', NEW.id));
      RETURN NULL;
    END $$;
    REVOKE ALL ON FUNCTION audit_master_key FROM PUBLIC;
    CREATE TRIGGER audit_master_key AFTER INSERT OR UPDATE OF state ON master_keys
      FOR EACH ROW EXECUTE FUNCTION audit_master_key();
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP TABLE master_keys, presences; DROP FUNCTION audit_master_key;');
}
