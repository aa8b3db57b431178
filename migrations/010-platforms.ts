import type { Knex } from 'knex';

/**
 * Several platforms, each with its own passwords. Only digests are stored: the passwords have 256 random bits, so a
 * digest reveals nothing. At most two are valid at a time, which a rotation needs.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE platforms
      ADD COLUMN created_at timestamptz NOT NULL DEFAULT now(),
      ADD CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,49}$');

    CREATE TABLE platform_passwords (
      id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
      platform_id uuid NOT NULL REFERENCES platforms,
      digest bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
      created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE INDEX platform_passwords_of ON platform_passwords (platform_id, created_at);

    CREATE FUNCTION platform_has_two_passwords_at_most() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      -- Two that are added at once wait for each other here.
      PERFORM 1 FROM platforms WHERE id = NEW.platform_id FOR UPDATE;
      IF (SELECT count(*) FROM platform_passwords WHERE platform_id = NEW.platform_id) >= 2 THEN
        RAISE EXCEPTION 'platform % has two passwords already', NEW.platform_id USING ERRCODE = 'check_violation';
      END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER platform_has_two_passwords_at_most BEFORE INSERT ON platform_passwords
      FOR EACH ROW EXECUTE FUNCTION platform_has_two_passwords_at_most();
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    DROP TABLE platform_passwords;
    DROP FUNCTION platform_has_two_passwords_at_most;
    ALTER TABLE platforms DROP COLUMN created_at, DROP CONSTRAINT platforms_name_check;
  `);
}
