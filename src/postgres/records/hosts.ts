import type { Knex } from 'knex';
import type { HostRecords, NewHost } from '../../core/ports/host-records.ts';
import type { SlotRules } from '../database.ts';
import { notifyGatewaysSql } from './notify-gateways.ts';
import { claimPoolHost } from './pool.ts';
import { type HostRow, toHost } from './rows.ts';
import { countFreeSlots, freeSlot, growPortBlock, insertHostRow } from './slots.ts';

export function createHostRecords(connection: Knex, slotRules: SlotRules): HostRecords {
  const insertNew = (host: NewHost) =>
    insertHostRow(connection, slotRules, host, {
      instance_id: host.instanceId,
      tenant_id: host.tenantId,
      registries: host.registries,
      idle: host.idle,
      state: 'creating',
    });

  return {
    async insertHost(host, imageVersion) {
      const claimed =
        imageVersion === undefined ? undefined : await claimPoolHost(connection, host, imageVersion);
      if (claimed !== undefined) return claimed;
      const row = await insertNew(host);
      return row && { host: toHost(row), parkedShape: undefined };
    },

    async insertNewHost(host) {
      const row = await insertNew(host);
      return row === undefined ? undefined : toHost(row);
    },

    async hostOfInstance(instanceId) {
      const row: HostRow | undefined = await connection<HostRow>('hosts')
        .where({ instance_id: instanceId })
        .whereNot({ state: 'destroyed' })
        .first();
      return row === undefined ? undefined : toHost(row);
    },

    async livingHost(hostId) {
      const row: HostRow | undefined = await connection<HostRow>('hosts')
        .where({ id: hostId })
        .whereNot({ state: 'destroyed' })
        .whereNotNull('instance_id')
        .first();
      return row === undefined ? undefined : toHost(row);
    },

    async livingHosts() {
      const rows = await connection<HostRow>('hosts')
        .whereNot({ state: 'destroyed' })
        .whereNotNull('instance_id')
        .orderBy('slot');
      return rows.map(toHost);
    },

    async setHostRunning(hostId, { startedFrom, engine, imageVersion }) {
      await connection<HostRow>('hosts')
        .where({ id: hostId })
        .update({
          state: 'running',
          started_from: startedFrom,
          first_started_from: connection.raw('coalesce(first_started_from, ?)', [startedFrom]),
          engine_host: engine.host,
          engine_port: engine.port,
          image_version: imageVersion,
          power: 'running',
          // By the same clock as the reports of workers, which it is compared with.
          power_since: connection.raw('clock_timestamp()'),
          wake_refused_at: null,
          updated_at: new Date(),
        });
      await connection.raw(notifyGatewaysSql, [hostId]);
    },

    async setHostHalted(hostId, halted) {
      await connection<HostRow>('hosts')
        .where({ id: hostId })
        .update({ halted: halted ?? null });
    },

    async setHostUnreachable(hostId) {
      await connection<HostRow>('hosts')
        .where({ id: hostId })
        .update({ engine_host: null, engine_port: null, updated_at: new Date() });
      await connection.raw(notifyGatewaysSql, [hostId]);
    },

    async recordMemoryLoss(hostId, at) {
      await connection<HostRow>('hosts').where({ id: hostId }).update({ memory_lost_at: at });
    },

    async setHostDestroyed(hostId) {
      await connection.transaction(async (transaction) => {
        await transaction<HostRow>('hosts').where({ id: hostId }).update({
          state: 'destroyed',
          engine_host: null,
          engine_port: null,
          updated_at: new Date(),
        });
        await transaction('host_restarts').where({ host_id: hostId }).delete();
        await freeSlot(transaction, slotRules, hostId);
      });
    },

    growPortBlock: (hostId, ports) => growPortBlock(connection, slotRules, hostId, ports),

    slotCount: slotRules.count,
    freeSlots: () => countFreeSlots(connection, slotRules),
  };
}
