import type { Knex } from 'knex';
import type { PoolRecords } from '../../core/ports/pool-records.ts';

const acquireLeadershipSql = `
  INSERT INTO leadership_leases (name, holder, lease_until)
  VALUES (:name, :holder, clock_timestamp() + :leaseMs * interval '1 millisecond')
  ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
    WHERE leadership_leases.holder = excluded.holder OR leadership_leases.lease_until < clock_timestamp()
  RETURNING name`;

export function createLeadership(connection: Knex): Pick<PoolRecords, 'acquireLeadership'> {
  return {
    async acquireLeadership(name, holder, leaseMs) {
      const { rows } = await connection.raw<{ rows: unknown[] }>(acquireLeadershipSql, {
        name,
        holder,
        leaseMs,
      });
      return rows.length === 1;
    },
  };
}
