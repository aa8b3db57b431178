import type { Knex } from 'knex';
import type { NewPoolHost } from '../../core/ports/pool-records.ts';
import type { PortBlocks } from '../database.ts';
import type { HostRow } from './rows.ts';

/** Concurrent transactions skip each other's slots instead of waiting. */
const takeSlotSql = `
  UPDATE slots SET host_id = ? WHERE slot = (
    SELECT slot FROM slots WHERE host_id IS NULL AND slot <= ? ORDER BY slot LIMIT 1 FOR UPDATE SKIP LOCKED
  ) RETURNING slot`;

/** Inserts a host and takes a slot and its ports for it; undefined if no slot is free. */
export async function insertHostRow(
  connection: Knex,
  portBlocks: PortBlocks,
  host: NewPoolHost,
  owner: Pick<HostRow, 'state'> & Partial<Pick<HostRow, 'instance_id' | 'tenant_id' | 'registries' | 'idle'>>,
): Promise<HostRow | undefined> {
  if (host.publishedPorts > portBlocks.size) {
    throw new Error(
      `plan ${host.planName} publishes ${host.publishedPorts} ports, but a block has ${portBlocks.size}`,
    );
  }
  const taken = await connection.raw<{ rows: { slot: number }[] }>(takeSlotSql, [host.id, portBlocks.count]);
  const slot = taken.rows[0]?.slot;
  if (slot === undefined) return undefined;
  const rows: HostRow[] = await connection<HostRow>('hosts')
    .insert({
      id: host.id,
      plan_name: host.planName,
      slot,
      vcpus: host.shape.vcpus,
      memory_mib: host.shape.memoryMib,
      disk_gib: host.shape.diskGib,
      first_port: portBlocks.first + (slot - 1) * portBlocks.size,
      ports: host.publishedPorts,
      egress: host.egress,
      ...owner,
    })
    .returning('*');
  return rows[0];
}

export async function countFreeSlots(connection: Knex, portBlocks: PortBlocks): Promise<number> {
  const [row] = await connection('slots')
    .whereNull('host_id')
    .andWhere('slot', '<=', portBlocks.count)
    .count<{ count: string }[]>();
  return Number(row?.count ?? 0);
}
