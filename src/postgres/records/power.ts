import type { Knex } from 'knex';
import type { PowerRequest } from '../../core/model/host.ts';
import type { PowerRecords } from '../../core/ports/power-records.ts';
import { channels } from '../channels.ts';
import { notifyGatewaysSql } from './notify-gateways.ts';

/**
 * Changes a host and notifies gateways in one statement: a gateway that misses a wake would continue to refuse the
 * host's bindings.
 */
const withNotification = (change: string) => `
  WITH changed AS (${change} RETURNING instance_id),
  notified AS (
    SELECT pg_notify('${channels.bindings}', bindings.id::text)
    FROM bindings JOIN changed USING (instance_id) WHERE bindings.state = 'live')
  SELECT (SELECT count(*) FROM notified) FROM changed`;

const setHostPowerSql = withNotification(`
  UPDATE hosts SET power = :to, power_since = clock_timestamp(), wake_refused_at = NULL, updated_at = clock_timestamp()
  WHERE id = :host AND state = 'running' AND power = :from AND engine_host IS NOT NULL AND NOT EXISTS (
    SELECT FROM operations WHERE operations.instance_id = hosts.instance_id AND operations.state = 'in progress')`);

const recordWakeRefusalSql = withNotification(`
  UPDATE hosts SET wake_refused_at = clock_timestamp(), updated_at = clock_timestamp()
  WHERE id = ? AND state = 'running' AND power <> 'running'`);

/**
 * Requests a power state of a host.
 * @param hostId placeholder of the query parameter, as are the others: `:name` for Knex, `$1` for pg (live-bindings.ts).
 */
export const requestPowerSql = (hostId: string, power: string) => `
  WITH request AS (
    INSERT INTO power_requests (host_id, power) SELECT id, ${power} FROM hosts WHERE id = ${hostId} AND state = 'running'
    ON CONFLICT (host_id) DO UPDATE SET power = excluded.power, asked_at = clock_timestamp() RETURNING host_id)
  SELECT pg_notify('${channels.power}', host_id::text) FROM request`;

interface PowerRequestRow {
  host_id: string;
  power: 'running' | 'paused' | 'suspended';
  asked_at: Date;
}

export function createPowerRecords(connection: Knex): PowerRecords {
  return {
    async setHostPower(hostId, from, to) {
      const { rowCount } = await connection.raw<{ rowCount: number }>(setHostPowerSql, {
        host: hostId,
        from,
        to,
      });
      return rowCount === 1;
    },

    async recordWakeRefusal(hostId) {
      await connection.raw(recordWakeRefusalSql, [hostId]);
    },

    async notifyGateways(hostId) {
      await connection.raw(notifyGatewaysSql, [hostId]);
    },

    async requestPower(hostId, power) {
      const { rowCount } = await connection.raw<{ rowCount: number }>(requestPowerSql(':hostId', ':power'), {
        hostId,
        power,
      });
      return rowCount === 1;
    },

    async powerRequest(hostId) {
      const row: PowerRequestRow | undefined = await connection<PowerRequestRow>('power_requests')
        .where({ host_id: hostId })
        .first();
      return row === undefined ? undefined : toRequest(row);
    },

    async powerRequests() {
      return (await connection<PowerRequestRow>('power_requests').orderBy('asked_at')).map(toRequest);
    },

    async deletePowerRequest({ hostId, power, askedAt }) {
      await connection<PowerRequestRow>('power_requests')
        .where({ host_id: hostId, power, asked_at: askedAt })
        .delete();
    },
  };
}

function toRequest(row: PowerRequestRow): PowerRequest {
  return { hostId: row.host_id, power: row.power, askedAt: row.asked_at };
}
