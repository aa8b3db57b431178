import { setTimeout as delay } from 'node:timers/promises';
import type { Knex } from 'knex';
import { refused } from '../core/errors.ts';
import type { Drift } from '../core/hypervisor/integrity.ts';
import type { CheckRecords, HostCheck, HostChecks } from '../core/ports/host-checks.ts';
import { channels } from './channels.ts';
import { notifyGatewaysSql } from './records/notify-gateways.ts';

/** Whoever runs the command waits so long for the workers, in milliseconds. */
const deadlineMs = 60_000;
const lookAgainMs = 100;

/** A host of an instance on which something is under way is not as it was made, nor as it will be. */
const atRest = `
  hosts.state = 'running' AND NOT EXISTS (
    SELECT FROM operations WHERE operations.instance_id = hosts.instance_id AND operations.state = 'in progress')`;
/** A worker is cutting it off, or died at it. */
const halfQuarantined = `hosts.state = 'running' AND hosts.quarantined_at > COALESCE(checked_at, '-infinity')`;
/** Of a suspended host nothing lives. */
const checkable = `(hosts.state = 'parked' OR (
  hosts.engine_host IS NOT NULL AND hosts.power <> 'suspended' AND ${atRest}))`;

interface CheckRow {
  host_id: string;
  /** Null while the host waits in the pool. */
  osb_id: string | null;
  pooled: boolean;
  requested: boolean;
  checked_at: Date | null;
  drift: Drift[] | null;
  failed_at: Date | null;
  failure: string | null;
  quarantined_at: Date | null;
}

const select = `
  SELECT hosts.id AS host_id, instances.osb_id, hosts.state = 'parked' AS pooled, checked_at, drift, failed_at, failure,
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
        `${select} WHERE ${checkable} ORDER BY hosts.slot`,
      );
      return rows.map((row) => ({
        hostId: row.host_id,
        pooled: row.pooled,
        requested: row.requested,
        drift: row.drift ?? [],
      }));
    },
    async recordCheck(hostId, drift) {
      await record(database, hostId, 'clock_timestamp()', drift);
    },
    async recordFailure(hostId, reason) {
      // Not of a host on which an operation has begun meanwhile.
      await database.raw(
        `INSERT INTO host_checks (host_id, failed_at, failure)
           SELECT hosts.id, clock_timestamp(), :reason FROM hosts WHERE hosts.id = :hostId AND ${checkable}
         ON CONFLICT (host_id) DO UPDATE SET failed_at = excluded.failed_at, failure = excluded.failure`,
        { hostId, reason },
      );
    },
    async recordQuarantine(hostId, drift) {
      await database.transaction(async (transaction) => {
        // By the clock that a release is held against.
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
      const { rows } = await database.raw<{ rows: CheckRow[] }>(`${select} WHERE ${halfQuarantined}`);
      return rows.map((row) => ({ hostId: row.host_id, drift: row.drift ?? [] }));
    },
    async released() {
      const { rows } = await database.raw<{ rows: { host_id: string }[] }>(
        `SELECT host_id FROM host_checks JOIN hosts ON hosts.id = host_id
         WHERE release_requested_at > quarantined_at AND ${atRest}`,
      );
      return rows.map((row) => row.host_id);
    },
    async recordRelease(hostId) {
      await database.raw('UPDATE hosts SET quarantined_at = NULL, updated_at = now() WHERE id = ?', [hostId]);
    },
  };
}

/** The operators' side: asks by a row and a notification, and reads the answer from the row. */
export function createHostChecks(database: Knex): HostChecks {
  return {
    async now(host) {
      const wanted = await database.raw<{ rows: CheckRow[] }>(
        `${select} WHERE hosts.state <> 'destroyed' AND starts_with(hosts.id::text, :host)
           AND (:host <> '' OR ${checkable}) ORDER BY hosts.slot LIMIT 1000`,
        { host: host ?? '' },
      );
      if (host !== undefined && wanted.rows.length === 0) {
        throw refused.notFound(`There is no host ${host}. \`berth hosts\` lists them.`);
      }
      const ids = wanted.rows.map((row) => row.host_id);
      await database.raw(
        `INSERT INTO host_checks (host_id, requested_at) SELECT unnest(:ids::uuid[]), clock_timestamp()
         ON CONFLICT (host_id) DO UPDATE SET requested_at = excluded.requested_at`,
        { ids },
      );
      await database.raw(`SELECT pg_notify('${channels.checks}', '')`);
      return until(database, ids);
    },

    async release(hostId) {
      const { rowCount } = await database.raw<{ rowCount: number }>(
        `INSERT INTO host_checks (host_id, release_requested_at)
           SELECT id, clock_timestamp() FROM hosts
           WHERE id = :hostId AND state = 'running' AND quarantined_at IS NOT NULL
         ON CONFLICT (host_id) DO UPDATE SET release_requested_at = excluded.release_requested_at`,
        { hostId },
      );
      await database.raw(`SELECT pg_notify('${channels.checks}', '')`);
      return rowCount === 1;
    },
  };
}

async function until(database: Knex, ids: readonly string[]): Promise<readonly HostCheck[]> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const { rows } = await database.raw<{ rows: (CheckRow & { awaited: boolean })[] }>(
      `${select.replace('SELECT', `SELECT (${checkable} OR ${halfQuarantined}) AS awaited,`)}
       WHERE hosts.id = ANY(:ids::uuid[]) AND hosts.state <> 'destroyed' ORDER BY hosts.slot`,
      { ids },
    );
    // One that has been cut off before, or that an operation has begun on, is checked no more.
    if (rows.every((row) => !row.requested || !row.awaited)) return rows.map(toCheck);
    if (performance.now() > deadline) {
      throw refused.unavailable(
        'No worker has checked the hosts in time. GET /mgmt/health tells whether one is at work.',
      );
    }
    await delay(lookAgainMs);
  }
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
