import type { Knex } from 'knex';

const bindingsPerInstance = 3;
/** The api gives the slots below to its own hosts. */
const firstSlot = 1_000_000;

/**
 * Inserts this number of live bindings, with instances like the broker's, so that the gateway reads them.
 * Their hosts are `creating` because no hypervisor has them: reconciliation would restart running ones.
 */
export async function populate(database: Knex, bindings: number): Promise<void> {
  const last = Math.ceil(bindings / bindingsPerInstance) - 1;
  const id = (kind: string) => `md5('${kind}' || i)::uuid`;
  const { id: platformId } = (await database<{ id: string }>('platforms').first('id')) ?? {};
  if (platformId === undefined) throw new Error('the broker has no platform');
  const statements = [
    `INSERT INTO tenants (id, platform_id, key)
     SELECT ${id('tenant')}, :platformId::uuid, 'bench ' || i FROM generate_series(0, :last::integer) i`,
    `INSERT INTO instances (id, platform_id, tenant_id, osb_id, service_id, plan_id, parameters, context, state)
     SELECT ${id('instance')}, :platformId::uuid, ${id('tenant')}, 'bench ' || i, 'bench', 'bench-small', '{}', '{}', 'creating'
     FROM generate_series(0, :last::integer) i`,
    `INSERT INTO slots (slot, host_id)
     SELECT :firstSlot::integer + i, ${id('host')} FROM generate_series(0, :last::integer) i`,
    `INSERT INTO hosts (id, instance_id, tenant_id, plan_name, slot, vcpus, memory_mib, disk_gib, first_port, ports, port_block, egress, state)
     SELECT ${id('host')}, ${id('instance')}, ${id('tenant')}, 'small', :firstSlot::integer + i, 1, 768, 4, 30000, 0, 0,
       '{"kind": "internet"}', 'creating' FROM generate_series(0, :last::integer) i`,
    `INSERT INTO bindings (id, osb_id, instance_id, tenant_id, serial, certificate, sealed_credentials, parameters, state,
       client_ca, server_ca, created_at, expires_at)
     SELECT md5('binding' || i || '/' || b)::uuid, 'bench ' || b, ${id('instance')}, ${id('tenant')}, 'b' || md5(i || '/' || b),
       repeat('x', 800), repeat('x', 1400)::bytea, '{}', 'live',
       gen_random_uuid(), gen_random_uuid(), now(), now() + interval '1 year'
     FROM generate_series(0, :last::integer) i, generate_series(1, ${bindingsPerInstance}) b`,
  ];
  await database.transaction(async (transaction) => {
    // Without triggers: those that count quotas a row at a time would take longer than all the rest.
    await transaction.raw('SET LOCAL session_replication_role = replica');
    for (const statement of statements) await transaction.raw(statement, { platformId, last, firstSlot });
  });
  await database.raw('ANALYZE');
}
