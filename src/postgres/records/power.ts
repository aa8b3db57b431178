import type { Knex } from 'knex';
import type { PowerRequest } from '../../core/model/host.ts';
import type { Records } from '../../core/ports/store.ts';
import { channels } from '../channels.ts';
import { tellGateways } from './hosts.ts';

type PowerRecords = Pick<
  Records,
  | 'setHostPower'
  | 'recordWakeRefusal'
  | 'notifyGateways'
  | 'requestPower'
  | 'powerRequest'
  | 'powerRequests'
  | 'deletePowerRequest'
>;

/**
 * Changes a host and tells its gateways, in one statement: one that was not told of a host which has woken would go on
 * refusing its bindings.
 */
const telling = (change: string) => `
  WITH changed AS (${change} RETURNING instance_id),
  told AS (
    SELECT pg_notify('${channels.bindings}', bindings.id::text)
    FROM bindings JOIN changed USING (instance_id) WHERE bindings.state = 'live')
  SELECT (SELECT count(*) FROM told) FROM changed`;

const setPower = telling(`
  UPDATE hosts SET power = :to, power_since = clock_timestamp(), wake_refused_at = NULL, updated_at = clock_timestamp()
  WHERE id = :host AND state = 'running' AND power = :from AND engine_host IS NOT NULL AND NOT EXISTS (
    SELECT FROM operations WHERE operations.instance_id = hosts.instance_id AND operations.state = 'in progress')`);

const refuseWake = telling(`
  UPDATE hosts SET wake_refused_at = clock_timestamp(), updated_at = clock_timestamp()
  WHERE id = ? AND state = 'running' AND power <> 'running'`);

/** $1: the host, $2: what is wanted of it. Gateways send it over a connection of their own (live-bindings.ts). */
export const requestPower = `
  WITH request AS (
    INSERT INTO power_requests (host_id, power) SELECT id, $2 FROM hosts WHERE id = $1 AND state = 'running'
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
      const { rowCount } = await connection.raw<{ rowCount: number }>(setPower, { host: hostId, from, to });
      return rowCount === 1;
    },

    async recordWakeRefusal(hostId) {
      await connection.raw(refuseWake, [hostId]);
    },

    async notifyGateways(hostId) {
      await connection.raw(tellGateways, [hostId]);
    },

    async requestPower(hostId, power) {
      const { rowCount } = await connection.raw<{ rowCount: number }>(
        requestPower.replaceAll('$1', ':host').replaceAll('$2', ':power'),
        { host: hostId, power },
      );
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
