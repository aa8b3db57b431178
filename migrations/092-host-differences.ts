import type { Knex } from 'knex';

/**
 * What differs between Postgres and the hypervisor, as reconciliation found it, and what an operator has decided about
 * it. No foreign key to `hosts`: Postgres may never have heard of a host that exists.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.raw(`
    CREATE TABLE host_differences (
      host_id uuid PRIMARY KEY,
      kind text NOT NULL CHECK (kind IN ('leftover', 'ownerless', 'owned', 'unreadable', 'disputed', 'missing')),
      -- Slot, ports and owner by the host's own record; new hosts don't get its slot or ports.
      slot integer,
      first_port integer,
      ports integer,
      owner uuid,
      -- What is known about the owner: with it, the host can be adopted.
      owner_note jsonb,
      first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      removal_requested_at timestamptz,
      -- Why the last removal failed.
      failure text
    );
  `);
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('DROP TABLE host_differences');
}
