import type { Knex } from 'knex';
import type { Records } from '../core/store.ts';
import { channels } from './channels.ts';
import type { PortBlocks } from './database.ts';
import { type HostRow, toHost } from './rows.ts';

type HostRecords = Pick<
  Records,
  | 'insertHost'
  | 'hostOfInstance'
  | 'livingHosts'
  | 'setHostRunning'
  | 'setHostUnreachable'
  | 'setHostDestroyed'
>;

/** A free slot is taken without waiting for others that are just taking theirs. */
const takeSlot = `
  UPDATE slots SET host_id = ? WHERE slot = (
    SELECT slot FROM slots WHERE host_id IS NULL AND slot <= ? ORDER BY slot LIMIT 1 FOR UPDATE SKIP LOCKED
  ) RETURNING slot`;

/** Gateways read the host's address with each of its bindings. */
const tellGateways = `
  SELECT pg_notify('${channels.bindings}', bindings.id::text)
  FROM bindings JOIN hosts USING (instance_id) WHERE hosts.id = ? AND bindings.state = 'live'`;

export function createHostRecords(connection: Knex, portBlocks: PortBlocks): HostRecords {
  return {
    async insertHost(host) {
      if (host.publishedPorts > portBlocks.size) {
        throw new Error(`plan ${host.planName} publishes more ports than a block holds`);
      }
      const taken = await connection.raw<{ rows: { slot: number }[] }>(takeSlot, [host.id, portBlocks.count]);
      const slot = taken.rows[0]?.slot;
      if (slot === undefined) return undefined;
      const rows: HostRow[] = await connection<HostRow>('hosts')
        .insert({
          id: host.id,
          instance_id: host.instanceId,
          tenant_id: host.tenantId,
          plan_name: host.planName,
          slot,
          vcpus: host.shape.vcpus,
          memory_mib: host.shape.memoryMib,
          disk_gib: host.shape.diskGib,
          first_port: portBlocks.first + (slot - 1) * portBlocks.size,
          ports: host.publishedPorts,
          egress: host.egress,
          state: 'planned',
        })
        .returning('*');
      const row = rows[0];
      return row === undefined ? undefined : toHost(row);
    },

    async hostOfInstance(instanceId) {
      const row: HostRow | undefined = await connection<HostRow>('hosts')
        .where({ instance_id: instanceId })
        .whereNot({ state: 'destroyed' })
        .first();
      return row === undefined ? undefined : toHost(row);
    },

    async livingHosts() {
      const rows = await connection<HostRow>('hosts').whereNot({ state: 'destroyed' }).orderBy('slot');
      return rows.map(toHost);
    },

    async setHostRunning(hostId, startedFrom, engine) {
      await connection<HostRow>('hosts').where({ id: hostId }).update({
        state: 'running',
        started_from: startedFrom,
        engine_host: engine.host,
        engine_port: engine.port,
        updated_at: new Date(),
      });
      await connection.raw(tellGateways, [hostId]);
    },

    async setHostUnreachable(hostId) {
      await connection<HostRow>('hosts')
        .where({ id: hostId })
        .update({ engine_host: null, engine_port: null, updated_at: new Date() });
      await connection.raw(tellGateways, [hostId]);
    },

    async setHostDestroyed(hostId) {
      await connection.transaction(async (transaction) => {
        await transaction<HostRow>('hosts').where({ id: hostId }).update({
          state: 'destroyed',
          engine_host: null,
          engine_port: null,
          updated_at: new Date(),
        });
        await transaction('slots').where({ host_id: hostId }).update({ host_id: null });
      });
    },
  };
}
