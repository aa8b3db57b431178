import type { Knex } from 'knex';

/**
 * Instances that expire: the host is destroyed, and the instance stays as expired, since the platform still lists it.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE instances
      ADD COLUMN expires_at timestamptz,
      DROP CONSTRAINT instances_state_check,
      ADD CONSTRAINT instances_state_check
        CHECK (state IN ('creating', 'ready', 'failed', 'expired', 'deleting', 'deleted'));
    CREATE INDEX instances_expiring ON instances (expires_at) WHERE state = 'ready' AND expires_at IS NOT NULL;

    -- Later migrations that add a kind add its row.
    CREATE TABLE operation_kinds (kind text PRIMARY KEY);
    INSERT INTO operation_kinds VALUES ('provision'), ('deprovision'), ('restart'), ('expire');
    ALTER TABLE operations
      DROP CONSTRAINT IF EXISTS operations_kind_check,
      ADD CONSTRAINT operations_kind_is_known FOREIGN KEY (kind) REFERENCES operation_kinds;
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE operations DROP CONSTRAINT operations_kind_is_known;
    DROP TABLE operation_kinds;
    DELETE FROM operations WHERE kind = 'expire';
    UPDATE instances SET state = 'failed' WHERE state = 'expired';
    ALTER TABLE instances
      DROP COLUMN expires_at,
      DROP CONSTRAINT instances_state_check,
      ADD CONSTRAINT instances_state_check CHECK (state IN ('creating', 'ready', 'failed', 'deleting', 'deleted'));
    ALTER TABLE operations ADD CONSTRAINT operations_kind_check
      CHECK (kind IN ('provision', 'deprovision', 'restart'));
  `);
}
