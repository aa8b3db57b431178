import type { Knex } from 'knex';

/**
 * State `disputed`: the host's own record on the node says that it is another's than its row said. It belongs to no
 * instance and nobody claims it; it keeps its slot. `problem` says why.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    ALTER TABLE hosts
      ADD COLUMN problem text CHECK (length(problem) <= 2000),
      DROP CONSTRAINT hosts_state_check,
      DROP CONSTRAINT hosts_parked_has_no_owner;
    ALTER TABLE hosts
      ADD CONSTRAINT hosts_state_check
        CHECK (state IN ('parking', 'parked', 'creating', 'running', 'disputed', 'destroyed')),
      ADD CONSTRAINT hosts_parked_has_no_owner
        CHECK (state = 'destroyed' OR (state IN ('parking', 'parked', 'disputed')) = (tenant_id IS NULL)),
      ADD CONSTRAINT hosts_disputed_has_problem CHECK (state <> 'disputed' OR problem IS NOT NULL);
    ${trigger("IF NEW.state = 'disputed' AND OLD.state <> 'destroyed' THEN NEW.tenant_id := NULL; NEW.instance_id := NULL; RETURN NEW; END IF;")}
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw(`
    UPDATE hosts SET state = 'destroyed' WHERE state = 'disputed';
    ${trigger('')}
    ALTER TABLE hosts
      DROP CONSTRAINT hosts_disputed_has_problem,
      DROP CONSTRAINT hosts_state_check,
      DROP CONSTRAINT hosts_parked_has_no_owner,
      DROP COLUMN problem;
    ALTER TABLE hosts
      ADD CONSTRAINT hosts_state_check
        CHECK (state IN ('parking', 'parked', 'creating', 'running', 'destroyed')),
      ADD CONSTRAINT hosts_parked_has_no_owner
        CHECK (state = 'destroyed' OR (state IN ('parking', 'parked')) = (tenant_id IS NULL));
  `);
}

/** A host that is set aside loses the owner that its row named: it was never that owner's. */
const trigger = (setAside: string) => `
  CREATE OR REPLACE FUNCTION enforce_host_owner() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    ${setAside}
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
  END $$;`;
