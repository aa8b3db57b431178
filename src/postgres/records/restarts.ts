import type { Knex } from 'knex';
import type { RestartRecords } from '../../core/ports/restart-records.ts';

/** How long a host must have run for its earlier ends not to count. */
const soundAfter = `interval '10 minutes'`;
const firstPause = `interval '10 seconds'`;
const longestPause = `interval '15 minutes'`;
/** Enough doublings to reach the longest pause. */
const maxDoublings = 8;

/** `ended_at` is null while the host is believed to run: only then a new end is recorded. */
const recordHostEndSql = `
  WITH run AS (
    SELECT :reachable::boolean AND coalesce(max(finished_at) < clock_timestamp() - ${soundAfter}, true) AS was_sound
    FROM hosts LEFT JOIN operations ON operations.instance_id = hosts.instance_id AND operations.state = 'succeeded'
    WHERE hosts.id = :host)
  INSERT INTO host_restarts AS known (host_id, restarts, ended_at, retry_at)
    VALUES (:host, 0, clock_timestamp(), clock_timestamp())
  ON CONFLICT (host_id) DO UPDATE SET
    restarts = CASE WHEN known.ended_at IS NULL AND (SELECT was_sound FROM run) THEN 0 ELSE known.restarts END,
    ended_at = coalesce(known.ended_at, clock_timestamp()),
    retry_at = CASE
      WHEN known.ended_at IS NOT NULL THEN known.retry_at
      WHEN known.restarts = 0 OR (SELECT was_sound FROM run) THEN clock_timestamp()
      ELSE clock_timestamp()
        + least(${longestPause}, ${firstPause} * 2 ^ least(known.restarts - 1, ${maxDoublings})) END
  RETURNING restarts, retry_at, retry_at <= clock_timestamp() AS due`;

export function createRestartRecords(connection: Knex): RestartRecords {
  return {
    async recordHostEnd(hostId, wasReachable) {
      const { rows } = await connection.raw<{
        rows: { restarts: number; retry_at: Date; due: boolean }[];
      }>(recordHostEndSql, { host: hostId, reachable: wasReachable });
      const [row] = rows;
      if (row === undefined) throw new Error(`the end of host ${hostId} was not recorded`);
      return { due: row.due, restarts: row.restarts, retryAt: row.retry_at };
    },

    async recordRestart(hostId) {
      await connection('host_restarts')
        .where({ host_id: hostId })
        .update({ restarts: connection.raw('restarts + 1'), ended_at: null });
    },
  };
}
