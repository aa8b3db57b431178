import type { Knex } from 'knex';
import type { NewPoolHost } from '../../core/ports/pool-records.ts';
import type { SlotRules } from '../database.ts';
import type { HostRow } from './rows.ts';

/**
 * The slot that has been free for longest, so that addresses and ports return as late as possible. Left out: slots that
 * rest after another tenant's host or are used by a host that differs from its record, and those whose ports overlap a living host's, which got them under a
 * catalog with blocks of another size. Concurrent transactions skip each other's slots instead of waiting.
 */
const takeSlotSql = `
  UPDATE slots SET host_id = :host WHERE slot = (
    SELECT slot FROM slots
    WHERE host_id IS NULL AND slot <= :count
      AND (rests_until IS NULL OR rests_until <= clock_timestamp() OR former_tenant_id = :tenant)
      AND NOT EXISTS (
        SELECT FROM host_differences AS host WHERE host.slot = slots.slot
          OR host.first_port IS NOT NULL AND int4range(host.first_port, host.first_port + host.ports) &&
            int4range(:first + (slots.slot - 1) * :size, :first + slots.slot * :size)
      )
      AND NOT EXISTS (
        SELECT FROM hosts WHERE state <> 'destroyed' AND int4range(first_port, first_port + port_block) &&
          int4range(:first + (slots.slot - 1) * :size, :first + slots.slot * :size)
      )
    ORDER BY rests_until NULLS FIRST, slot LIMIT 1 FOR UPDATE SKIP LOCKED
  ) RETURNING slot`;

const freeSlotSql = `
  UPDATE slots SET host_id = NULL, former_tenant_id = hosts.tenant_id,
    rests_until = CASE WHEN hosts.tenant_id IS NOT NULL OR hosts.problem IS NOT NULL THEN clock_timestamp() + :seconds * interval '1 second' END
  FROM hosts WHERE slots.host_id = :host AND hosts.id = :host`;

/** Inserts a host and takes a slot and its ports for it; undefined if no slot is free. */
export async function insertHostRow(
  connection: Knex,
  rules: SlotRules,
  host: NewPoolHost,
  owner: Pick<HostRow, 'state'> & Partial<Pick<HostRow, 'instance_id' | 'tenant_id' | 'registries' | 'idle'>>,
): Promise<HostRow | undefined> {
  if (host.publishedPorts > rules.size) {
    throw new Error(
      `plan ${host.planName} publishes ${host.publishedPorts} ports, but a block has ${rules.size}`,
    );
  }
  const taken = await connection.raw<{ rows: { slot: number }[] }>(takeSlotSql, {
    host: host.id,
    count: rules.count,
    tenant: owner.tenant_id ?? null,
    first: rules.first,
    size: rules.size,
  });
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
      first_port: rules.first + (slot - 1) * rules.size,
      port_block: rules.size,
      ports: host.publishedPorts,
      egress: host.egress,
      ...owner,
    })
    .returning('*');
  return rows[0];
}

/** Frees the slot of a destroyed host, which rests first if the host had a tenant, or may have had one (disputed). */
export async function freeSlot(connection: Knex, rules: SlotRules, hostId: string): Promise<void> {
  await connection.raw(freeSlotSql, { host: hostId, seconds: rules.restSeconds });
}

/** The number of slots that any tenant's host could get now, leaving aside ports of living hosts. */
export async function countFreeSlots(connection: Knex, rules: SlotRules): Promise<number> {
  const [row] = await connection('slots')
    .whereNull('host_id')
    .andWhere('slot', '<=', rules.count)
    .andWhereRaw('(rests_until IS NULL OR rests_until <= clock_timestamp())')
    .whereNotExists(connection('host_differences').whereRaw('host_differences.slot = slots.slot'))
    .count<{ count: string }[]>();
  return Number(row?.count ?? 0);
}

const growPortBlockSql = `
  UPDATE hosts SET port_block = :ports
  WHERE id = :host AND first_port + :ports <= :end AND NOT EXISTS (
    SELECT FROM hosts AS other WHERE other.state <> 'destroyed' AND other.id <> hosts.id
      AND int4range(other.first_port, other.first_port + other.port_block) &&
        int4range(hosts.first_port, hosts.first_port + :ports)
  ) RETURNING id`;

/** Extends a host's block to `ports` ports; false if some of them belong to another host or are out of range. */
export async function growPortBlock(
  connection: Knex,
  rules: SlotRules,
  hostId: string,
  ports: number,
): Promise<boolean> {
  const { rows } = await connection.raw<{ rows: unknown[] }>(growPortBlockSql, {
    host: hostId,
    ports,
    end: rules.first + rules.count * rules.size,
  });
  return rows.length === 1;
}
