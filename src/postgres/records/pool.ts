import type { Knex } from 'knex';
import type { NewHost } from '../../core/ports/host-records.ts';
import type { NewPoolHost, PoolRecords } from '../../core/ports/pool-records.ts';
import type { SlotRules } from '../database.ts';
import { createLeadership } from './leadership.ts';
import { type HostRow, toPoolHost } from './rows.ts';
import { insertHostRow } from './slots.ts';

/** Concurrent claims skip each other's rows instead of waiting. */
const claimSql = `
  UPDATE hosts SET instance_id = :instance, tenant_id = :tenant, egress = :egress, registries = :registries, idle = :idle,
    state = 'creating', updated_at = now()
  WHERE id = (
    SELECT id FROM hosts
    WHERE state = 'parked' AND plan_name = :plan AND vcpus = :vcpus AND memory_mib = :memory
      AND disk_gib = :disk AND ports = :ports
    ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
  ) RETURNING *`;

/** Gives a parked host to an instance; undefined if none of its plan and shape is parked. */
export async function claimPoolHost(connection: Knex, host: NewHost): Promise<HostRow | undefined> {
  const { rows } = await connection.raw<{ rows: HostRow[] }>(claimSql, {
    instance: host.instanceId,
    tenant: host.tenantId,
    egress: JSON.stringify(host.egress),
    registries: JSON.stringify(host.registries),
    idle: host.idle,
    plan: host.planName,
    vcpus: host.shape.vcpus,
    memory: host.shape.memoryMib,
    disk: host.shape.diskGib,
    ports: host.publishedPorts,
  });
  return rows[0];
}

export function createPoolRecords(connection: Knex, slotRules: SlotRules): PoolRecords {
  const inState = (id: string, ...states: HostRow['state'][]) =>
    connection<HostRow>('hosts').where({ id }).whereIn('state', states);

  return {
    ...createLeadership(connection),

    async insertPoolHost(host: NewPoolHost) {
      // One transaction: a slot taken for a host without a row would never become free again.
      const row = await connection.transaction((transaction) =>
        insertHostRow(transaction, slotRules, host, { state: 'parking' }),
      );
      return row === undefined ? undefined : toPoolHost(row);
    },

    async poolHosts() {
      const rows = await connection<HostRow>('hosts')
        .whereIn('state', ['parking', 'parked'])
        .orderBy('created_at');
      return rows.map(toPoolHost);
    },

    setHostParked: async (hostId) =>
      (await inState(hostId, 'parking').update({ state: 'parked', updated_at: new Date() })) === 1,

    withdrawPoolHost: async (hostId) =>
      (await inState(hostId, 'parking', 'parked').update({ state: 'parking', updated_at: new Date() })) === 1,
  };
}
