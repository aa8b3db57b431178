import type { Knex } from 'knex';
import type { AssignedHost, NewHost } from '../../core/ports/host-records.ts';
import type { NewPoolHost, PoolRecords } from '../../core/ports/pool-records.ts';
import type { SlotRules } from '../database.ts';
import { createLeadership } from './leadership.ts';
import { type HostRow, toHost, toPoolHost } from './rows.ts';
import { insertHostRow } from './slots.ts';

/**
 * The parked host that has most of what the plan has, and nothing more; one that has all of it if there is one, as that waits
 * for nothing. Concurrent claims skip each other's rows instead of waiting.
 */
const claimSql = `
  UPDATE hosts SET instance_id = :instance, tenant_id = :tenant, egress = :egress, registries = :registries, idle = :idle,
    plan_name = :plan, vcpus = :vcpus, memory_mib = :memory, disk_gib = :disk, ports = :ports,
    state = 'creating', updated_at = now()
  FROM (
    SELECT id, vcpus, memory_mib, disk_gib FROM hosts
    WHERE state = 'parked' AND image_version = :image AND port_block >= :ports
      AND vcpus <= :vcpus AND memory_mib <= :memory AND disk_gib <= :disk
      AND (can_grow OR vcpus = :vcpus AND memory_mib = :memory AND disk_gib = :disk)
    ORDER BY memory_mib DESC, vcpus DESC, disk_gib DESC, ports = :ports DESC, created_at
    LIMIT 1 FOR UPDATE SKIP LOCKED
  ) AS parked
  WHERE hosts.id = parked.id
  RETURNING hosts.*, parked.vcpus AS parked_vcpus, parked.memory_mib AS parked_memory_mib, parked.disk_gib AS parked_disk_gib`;

type ClaimedRow = HostRow & { parked_vcpus: number; parked_memory_mib: number; parked_disk_gib: number };

/** Gives a parked host to an instance; undefined if none fits. */
export async function claimPoolHost(
  connection: Knex,
  host: NewHost,
  imageVersion: string,
): Promise<AssignedHost | undefined> {
  const { rows } = await connection.raw<{ rows: ClaimedRow[] }>(claimSql, {
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
    image: imageVersion,
  });
  const [row] = rows;
  if (row === undefined) return undefined;
  const { parked_vcpus: vcpus, parked_memory_mib: memoryMib, parked_disk_gib: diskGib } = row;
  return { host: toHost(row), parkedShape: { vcpus, memoryMib, diskGib } };
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

    async setHostParked(hostId, { imageVersion, canGrow }) {
      const parked = { image_version: imageVersion, can_grow: canGrow, updated_at: new Date() };
      return (await inState(hostId, 'parking').update({ state: 'parked', ...parked })) === 1;
    },

    async createdInstances(seconds, mostOfTenant) {
      const { rows } = await connection.raw<{ rows: { plan_id: string; count: number }[] }>(
        `SELECT plan_id, count(*)::integer AS count FROM (
           SELECT plan_id, row_number() OVER (PARTITION BY tenant_id ORDER BY created_at DESC) AS place
           FROM instances WHERE created_at > now() - :seconds * interval '1 second'
         ) AS created WHERE place <= :mostOfTenant GROUP BY plan_id`,
        { seconds, mostOfTenant },
      );
      return new Map(rows.map((row) => [row.plan_id, row.count]));
    },

    withdrawPoolHost: async (hostId) =>
      (await inState(hostId, 'parking', 'parked').update({ state: 'parking', updated_at: new Date() })) === 1,
  };
}
