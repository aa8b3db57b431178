import type { Knex } from 'knex';
import type pg from 'pg';
import { refused } from '../core/errors.ts';
import type { HighestMark, HistoryRecords } from '../core/ports/database-history.ts';
import { channels } from './channels.ts';

const serverStartSql = 'pg_postmaster_start_time()::text';

const advanceSql = `
  UPDATE installation SET mark = mark + 1 WHERE history = database_history() AND mark >= ?
  RETURNING mark, ${serverStartSql} AS server_start`;

const confirmSql = `
  UPDATE installation SET history = database_history(), mark = greatest(mark, :seen) + 1
  WHERE history <> database_history() OR mark < :seen
  RETURNING mark`;

/** The statement that revokes also audits and notifies, so that none of the three is missing after a kill. */
const revokeAgainSql = `
  WITH revoked AS (
    UPDATE bindings SET state = 'revoked', sealed_credentials = NULL, revoked_at = now(), settled_at = NULL
    WHERE id = ANY (?::uuid[]) AND state = 'live' RETURNING id, osb_id, instance_id),
  audited AS (
    INSERT INTO audit (actor, action, instance_id, binding_id, outcome)
    SELECT 'berth', 'binding.revoke_again', instances.osb_id, revoked.osb_id, 'succeeded'
    FROM revoked JOIN instances ON instances.id = revoked.instance_id)
  SELECT id, pg_notify('${channels.bindings}', id::text) FROM revoked`;

/** @param database connections that are not checked, or the present history could never be confirmed. */
export function createHistoryRecords(database: Knex): HistoryRecords {
  return {
    async advance(seen) {
      return database.transaction(async (transaction) => {
        // If it is off for the database, a mere crash would lose a mark that was seen.
        await transaction.raw('SET LOCAL synchronous_commit = on');
        const { rows } = await transaction.raw<{ rows: { mark: string; server_start: string }[] }>(
          advanceSql,
          [seen],
        );
        return rows[0] && { mark: Number(rows[0].mark), serverStart: rows[0].server_start };
      });
    },
    async confirm(seen) {
      const { rows } = await database.raw<{ rows: { mark: string }[] }>(confirmSql, { seen });
      return rows[0] && Number(rows[0].mark);
    },
    async serverStart() {
      const { rows } = await database.raw<{ rows: { start: string }[] }>(`SELECT ${serverStartSql} AS start`);
      return rows[0]?.start ?? '';
    },
    async revokeAgain(bindingIds) {
      const { rows } = await database.raw<{ rows: { id: string }[] }>(revokeAgainSql, [[...bindingIds]]);
      return rows.map(({ id }) => id);
    },
  };
}

const confirmedSql = 'SELECT history = database_history() AND mark >= $1 AS confirmed FROM installation';

/** Checks a new connection before it is used. @throws RefusedError (503) if the database must not be used yet. */
export type ConnectionCheck = (connection: pg.Client) => Promise<void>;

/**
 * Refuses connections to a database whose history no worker has confirmed. A database goes back in time only with its
 * server (a failover, restored files) or as another database (a restored dump), so each former connection is lost.
 */
export function requireConfirmedHistory(highest: Pick<HighestMark, 'read'>): ConnectionCheck {
  return async (connection) => {
    const seen = await highest.read();
    const isConfirmed = await connection.query<{ confirmed: boolean }>(confirmedSql, [seen]).then(
      ({ rows }) => rows[0]?.confirmed === true,
      (error: unknown) => {
        // 55000: it is a replica that has not been promoted yet (PostgreSQL manual, appendix A).
        if ((error as { code?: string }).code === '55000') return false;
        throw error;
      },
    );
    if (!isConfirmed) throw refused.databaseUnconfirmed();
  };
}
