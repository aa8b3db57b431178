import type { Knex } from 'knex';
import type { NewPooledHost } from '../../core/ports/pool-records.ts';
import type { PortBlocks } from '../database.ts';
import type { HostRow } from './rows.ts';

/** A free slot is taken without waiting for others that are just taking theirs. */
const takeSlot = `
  UPDATE slots SET host_id = ? WHERE slot = (
    SELECT slot FROM slots WHERE host_id IS NULL AND slot <= ? ORDER BY slot LIMIT 1 FOR UPDATE SKIP LOCKED
  ) RETURNING slot`;

/** Records a host with a slot of its own, and the ports that follow from it; undefined where no slot is free. */
export async function insertHostRow(
  connection: Knex,
  portBlocks: PortBlocks,
  host: NewPooledHost,
  owner: Pick<HostRow, 'state'> & Partial<Pick<HostRow, 'instance_id' | 'tenant_id' | 'registries' | 'idle'>>,
): Promise<HostRow | undefined> {
  if (host.publishedPorts > portBlocks.size) {
    throw new Error(`plan ${host.planName} publishes more ports than a block holds`);
  }
  const taken = await connection.raw<{ rows: { slot: number }[] }>(takeSlot, [host.id, portBlocks.count]);
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
