import type { Knex } from 'knex';

/**
 * How the installation notices that its database has lost transactions: `history` names the server, its timeline (each
 * promotion begins one) and the database; `mark` advances every second. A worker confirms a history that is not on
 * record here, or a mark that is lower than the one in the state directory, before any process uses the database.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    -- Managed servers may withhold a part; the others and the mark then have to do. A replica raises an error.
    CREATE FUNCTION database_history() RETURNS text LANGUAGE plpgsql STABLE AS $$
    DECLARE server text := '?'; timeline text := '?';
    BEGIN
      BEGIN
        server := (SELECT system_identifier FROM pg_control_system());
      EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN NULL;
      END;
      BEGIN
        -- pg_control_checkpoint() names the former timeline until the first checkpoint after a promotion.
        timeline := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
      EXCEPTION WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN NULL;
      END;
      RETURN concat_ws('/', server, timeline,
        (SELECT oid::text FROM pg_database WHERE datname = current_database()));
    END $$;
    ALTER TABLE installation
      ADD COLUMN history text NOT NULL DEFAULT database_history(),
      ADD COLUMN mark bigint NOT NULL DEFAULT 0;
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE installation DROP COLUMN history, DROP COLUMN mark;
    DROP FUNCTION database_history();
  `);
}
