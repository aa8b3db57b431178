import type { Knex } from 'knex';

/**
 * Totals for metrics: rows about what has ended are kept for years, and counting them would take longer and longer.
 * Triggers add one row to `totals` for each event, since a counter that is updated in place would make transactions wait for
 * each other; the worker merges them. The index finds the instances that exist.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    CREATE INDEX instances_living ON instances (platform_id, state) WHERE state <> 'deleted';
    CREATE TABLE totals (
      subject text NOT NULL CHECK (subject IN ('instances', 'hosts', 'bindings', 'operations')),
      -- The kind of operations, the plan of hosts, else empty.
      kind text NOT NULL,
      -- The state that they have reached; of hosts, what they were first started from.
      state text NOT NULL,
      count bigint NOT NULL,
      seconds float8 NOT NULL
    );

    CREATE FUNCTION add_to_totals() RETURNS trigger LANGUAGE plpgsql
      SECURITY DEFINER SET search_path FROM CURRENT AS $$
    BEGIN
      CASE TG_TABLE_NAME
        WHEN 'operations' THEN INSERT INTO totals VALUES ('operations', NEW.kind, NEW.state, 1,
          coalesce(extract(epoch FROM NEW.finished_at - NEW.created_at), 0));
        WHEN 'hosts' THEN INSERT INTO totals VALUES ('hosts', NEW.plan_name, NEW.first_started_from, 1, 0);
        ELSE INSERT INTO totals VALUES (TG_TABLE_NAME, '', NEW.state, 1, 0);
      END CASE;
      RETURN NULL;
    END $$;
    REVOKE EXECUTE ON FUNCTION add_to_totals FROM PUBLIC;
    CREATE TRIGGER add_to_totals AFTER UPDATE OF state ON operations
      FOR EACH ROW WHEN (OLD.state = 'in progress' AND NEW.state <> 'in progress') EXECUTE FUNCTION add_to_totals();
    CREATE TRIGGER add_to_totals AFTER UPDATE OF state ON instances
      FOR EACH ROW WHEN (OLD.state <> 'deleted' AND NEW.state = 'deleted') EXECUTE FUNCTION add_to_totals();
    CREATE TRIGGER add_to_totals AFTER UPDATE OF state ON bindings
      FOR EACH ROW WHEN (OLD.state <> 'revoked' AND NEW.state = 'revoked') EXECUTE FUNCTION add_to_totals();
    CREATE TRIGGER add_to_totals AFTER UPDATE OF first_started_from ON hosts
      FOR EACH ROW WHEN (OLD.first_started_from IS NULL AND NEW.first_started_from IS NOT NULL)
      EXECUTE FUNCTION add_to_totals();

    INSERT INTO totals
      SELECT 'operations', kind, state, count(*), coalesce(extract(epoch FROM sum(finished_at - created_at)), 0)
        FROM operations WHERE state <> 'in progress' GROUP BY kind, state
      UNION ALL SELECT 'instances', '', state, count(*), 0 FROM instances WHERE state = 'deleted' GROUP BY state
      UNION ALL SELECT 'bindings', '', state, count(*), 0 FROM bindings WHERE state = 'revoked' GROUP BY state
      UNION ALL SELECT 'hosts', plan_name, first_started_from, count(*), 0
        FROM hosts WHERE first_started_from IS NOT NULL GROUP BY plan_name, first_started_from;
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    DROP TRIGGER add_to_totals ON operations;
    DROP TRIGGER add_to_totals ON instances;
    DROP TRIGGER add_to_totals ON bindings;
    DROP TRIGGER add_to_totals ON hosts;
    DROP FUNCTION add_to_totals;
    DROP TABLE totals;
    DROP INDEX instances_living;
  `);
}
