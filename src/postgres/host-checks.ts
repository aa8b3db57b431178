import type { Knex } from 'knex';
import type { Drift } from '../core/hypervisor/integrity.ts';
import type { CheckRecords, CheckRequests, HostCheck } from '../core/ports/host-checks.ts';
import { channels } from './channels.ts';
import { notify } from './notify.ts';
import { notifyGatewaysSql } from './records/notify-gateways.ts';

/** While an operation changes a host, it is neither as it was made nor as it will be. */
const noOperationSql = `
  hosts.state = 'running' AND NOT EXISTS (
    SELECT FROM operations WHERE operations.instance_id = hosts.instance_id AND operations.state = 'in progress')`;
/** A worker is putting the host into quarantine, or died while it did. */
const halfQuarantinedSql = `hosts.state = 'running' AND hosts.quarantined_at > COALESCE(checked_at, '-infinity')`;
/** A suspended host has no process to check. */
const checkableSql = `(hosts.state = 'parked' OR (
  hosts.engine_host IS NOT NULL AND hosts.power <> 'suspended' AND ${noOperationSql}))`;

interface CheckRow {
  host_id: string;
  /** Null while the host is in the pool. */
  osb_id: string | null;
  parked: boolean;
  requested: boolean;
  checked_at: Date | null;
  drift: Drift[] | null;
  failed_at: Date | null;
  failure: string | null;
  quarantined_at: Date | null;
}

const selectSql = `
  SELECT hosts.id AS host_id, instances.osb_id, hosts.state = 'parked' AS parked, checked_at, drift, failed_at, failure,
    quarantined_at, COALESCE(requested_at > COALESCE(GREATEST(checked_at, failed_at), '-infinity'), FALSE) AS requested
  FROM hosts LEFT JOIN instances ON instances.id = hosts.instance_id LEFT JOIN host_checks ON host_id = hosts.id`;

/** The worker's side: what to check, and what was found. */
export function createCheckRecords(database: Knex): CheckRecords {
  const record = (connection: Knex, hostId: string, checkedAt: string, drift: readonly Drift[]) =>
    connection.raw(
      `INSERT INTO host_checks AS former (host_id, checked_at, drift) VALUES (:hostId, ${checkedAt}, :found)
       ON CONFLICT (host_id) DO UPDATE SET
         checked_at = COALESCE(excluded.checked_at, former.checked_at), drift = excluded.drift,
         failed_at = NULL, failure = NULL`,
      { hostId, found: JSON.stringify(drift) },
    );

  return {
    async checkable() {
      const { rows } = await database.raw<{ rows: CheckRow[] }>(
        `${selectSql} WHERE ${checkableSql} ORDER BY hosts.slot`,
      );
      return rows.map((row) => ({
        hostId: row.host_id,
        parked: row.parked,
        requested: row.requested,
        drift: row.drift ?? [],
      }));
    },
    async recordCheck(hostId, drift) {
      await record(database, hostId, 'clock_timestamp()', drift);
    },
    async recordFailure(hostId, reason) {
      // Unless an operation on its instance has begun since.
      await database.raw(
        `INSERT INTO host_checks (host_id, failed_at, failure)
           SELECT hosts.id, clock_timestamp(), :reason FROM hosts WHERE hosts.id = :hostId AND ${checkableSql}
         ON CONFLICT (host_id) DO UPDATE SET failed_at = excluded.failed_at, failure = excluded.failure`,
        { hostId, reason },
      );
    },
    async recordQuarantine(hostId, drift) {
      await database.transaction(async (transaction) => {
        // By the database's clock, as the release that it is compared with.
        await transaction.raw(
          `UPDATE hosts SET engine_host = NULL, engine_port = NULL,
             quarantined_at = clock_timestamp(), updated_at = now() WHERE id = ?`,
          [hostId],
        );
        await record(transaction, hostId, 'NULL', drift);
        await transaction.raw(notifyGatewaysSql, [hostId]);
      });
    },
    async unfinishedQuarantines() {
      const { rows } = await database.raw<{ rows: CheckRow[] }>(`${selectSql} WHERE ${halfQuarantinedSql}`);
      return rows.map((row) => ({ hostId: row.host_id, drift: row.drift ?? [] }));
    },
    async released() {
      const { rows } = await database.raw<{ rows: { host_id: string }[] }>(
        `SELECT host_id FROM host_checks JOIN hosts ON hosts.id = host_id
         WHERE release_requested_at > quarantined_at AND ${noOperationSql}`,
      );
      return rows.map((row) => row.host_id);
    },
    async recordRelease(hostId) {
      await database.raw('UPDATE hosts SET quarantined_at = NULL, updated_at = now() WHERE id = ?', [hostId]);
    },
  };
}

/** The operators' side: requests by a row and a notification, and reads the result from the row. */
export function createCheckRequests(database: Knex): CheckRequests {
  const notifyWorkers = () => notify(database, channels.checks, '');
  return {
    async find(idPrefix) {
      const { rows } = await database.raw<{ rows: CheckRow[] }>(
        `${selectSql} WHERE hosts.state <> 'destroyed' AND starts_with(hosts.id::text, :idPrefix)
           AND (:idPrefix <> '' OR ${checkableSql}) ORDER BY hosts.slot LIMIT 1000`,
        { idPrefix: idPrefix ?? '' },
      );
      return rows.map((row) => row.host_id);
    },

    async requestCheck(hostIds) {
      await database.raw(
        `INSERT INTO host_checks (host_id, requested_at) SELECT unnest(:hostIds::uuid[]), clock_timestamp()
         ON CONFLICT (host_id) DO UPDATE SET requested_at = excluded.requested_at`,
        { hostIds: [...hostIds] },
      );
      await notifyWorkers();
    },

    async results(hostIds) {
      const { rows } = await database.raw<{ rows: (CheckRow & { awaited: boolean })[] }>(
        `${selectSql.replace('SELECT', `SELECT (${checkableSql} OR ${halfQuarantinedSql}) AS awaited,`)}
         WHERE hosts.id = ANY(:hostIds::uuid[]) AND hosts.state <> 'destroyed' ORDER BY hosts.slot`,
        { hostIds: [...hostIds] },
      );
      // A host in quarantine, or with an operation in progress, is not checked any more.
      return rows.map((row) => ({ check: toCheck(row), pending: row.requested && row.awaited }));
    },

    async requestRelease(hostId) {
      const { rowCount } = await database.raw<{ rowCount: number }>(
        `INSERT INTO host_checks (host_id, release_requested_at)
           SELECT id, clock_timestamp() FROM hosts
           WHERE id = :hostId AND state = 'running' AND quarantined_at IS NOT NULL
         ON CONFLICT (host_id) DO UPDATE SET release_requested_at = excluded.release_requested_at`,
        { hostId },
      );
      await notifyWorkers();
      return rowCount === 1;
    },
  };
}

function toCheck(row: CheckRow): HostCheck {
  return {
    host: row.host_id,
    instance: row.osb_id ?? undefined,
    checkedAt: row.checked_at ?? undefined,
    failure: row.failed_at === null ? undefined : { at: row.failed_at, reason: row.failure ?? '' },
    drift: row.drift ?? [],
    quarantined: row.quarantined_at !== null,
  };
}
