import type { Knex } from 'knex';
import { refused } from '../../core/errors.ts';
import type { LeasedOperation } from '../../core/model/operation.ts';
import type { OperationRecords } from '../../core/ports/operation-records.ts';
import { channels } from '../channels.ts';
import { notify } from '../notify.ts';
import { runPrepared } from '../prepared.ts';
import {
  type InstanceFields,
  instanceColumns,
  type OperationRow,
  toInstance,
  toLeasedOperation,
  toOperation,
} from './rows.ts';
import { setHostTarget, setInstanceTarget } from './update-target.ts';
import { isUuid } from '../../lib/uuid.ts';

/** Every new lease raises the fence, so that writes of an earlier lease holder are refused. */
const leaseSql = `
  UPDATE operations SET lease_owner = :worker, fence = fence + 1,
    lease_until = clock_timestamp() + :leaseMs * interval '1 millisecond'
  WHERE id = (
    SELECT id FROM operations
    WHERE state = 'in progress' AND run_after <= clock_timestamp()
      AND (lease_until IS NULL OR lease_until < clock_timestamp())
    ORDER BY run_after LIMIT 1 FOR UPDATE SKIP LOCKED
  ) RETURNING *`;

const reportedSql = `
  SELECT ${instanceColumns.map((column) => `instances.${column}`).join(', ')}, operation.kind AS operation_kind, operation.state AS operation_state,
    operation.description AS operation_description, (
      SELECT retry_at FROM hosts JOIN host_restarts ON host_id = hosts.id
      WHERE hosts.instance_id = instances.id AND ended_at IS NOT NULL AND hosts.state <> 'destroyed') AS restart_at
  FROM instances LEFT JOIN LATERAL (
    SELECT kind, state, description FROM operations WHERE instance_id = instances.id AND kind = ANY(:kinds)
    ORDER BY (id = :named) DESC NULLS LAST, created_at DESC LIMIT 1
  ) operation ON true
  WHERE platform_id = :platformId AND osb_id = :osbId AND id_released_at IS NULL`;

type ReportedRow = InstanceFields & {
  [Field in 'kind' | 'state' | 'description' as `operation_${Field}`]: OperationRow[Field] | null;
} & { restart_at: Date | null };

const nextDueSql = `
  SELECT extract(epoch FROM min(greatest(run_after, coalesce(lease_until, run_after))) - clock_timestamp()) * 1000
    AS ms FROM operations WHERE state = 'in progress'`;

const deleteOldSql = `
  DELETE FROM operations WHERE id IN (
    SELECT operations.id FROM operations JOIN instances ON instances.id = instance_id
    WHERE instances.state = 'deleted' AND finished_at < clock_timestamp() - :olderThanMs * interval '1 millisecond'
      AND instances.updated_at < clock_timestamp() - :olderThanMs * interval '1 millisecond'
    LIMIT :limit
  )`;

/** Whether the instance already has an operation in progress. */
function isInProgressConflict(error: unknown): boolean {
  const { code, constraint } = error as { code?: string; constraint?: string };
  return code === '23505' && constraint === 'operations_one_in_progress';
}

/** All but the newest `restart` of an instance, which nobody else refers to. */
const deleteOldRestartsSql = `
  DELETE FROM operations WHERE id IN (
    SELECT id FROM operations old
    WHERE kind = 'restart' AND finished_at < clock_timestamp() - interval '1 day' AND EXISTS (
      SELECT FROM operations WHERE instance_id = old.instance_id AND kind = 'restart' AND created_at > old.created_at)
    LIMIT :limit
  )`;

export function createOperationRecords(connection: Knex): OperationRecords {
  const table = () => connection<OperationRow>('operations');
  const leased = (operation: LeasedOperation) =>
    table().where({ id: operation.id, state: 'in progress', fence: String(operation.fence) });
  const interval = (ms: number) => connection.raw(`clock_timestamp() + ? * interval '1 millisecond'`, [ms]);
  const first = async (query: Knex.QueryBuilder) => {
    const row = (await query) as OperationRow | undefined;
    return row === undefined ? undefined : toOperation(row);
  };

  return {
    async insertOperation(operation) {
      const row = {
        id: operation.id,
        kind: operation.kind,
        instance_id: operation.instanceId,
        state: 'in progress' as const,
        step: operation.step,
        description: operation.description,
        deadline: operation.deadline,
        target: operation.target ?? null,
      };
      await table()
        .insert(row)
        .catch((error: unknown) => {
          throw isInProgressConflict(error) ? refused.concurrency() : error;
        });
      await notify(connection, channels.operations, operation.id);
    },

    async operation(id) {
      // Clients may send anything here (docs/osb.md 15).
      return isUuid(id) ? first(table().where({ id }).first()) : undefined;
    },

    unfinishedOperation: (instanceId) =>
      first(table().where({ instance_id: instanceId, state: 'in progress' }).first()),

    async reportedOperation({ platformId, osbId, operationId }, kinds) {
      const named = operationId !== undefined && isUuid(operationId) ? operationId : null;
      const [row] = await runPrepared<ReportedRow>(connection, 'reported-operation', reportedSql, {
        platformId,
        osbId,
        named,
        kinds: [...kinds],
      });
      if (row === undefined) return undefined;
      const instance = toInstance(row);
      const { operation_kind: kind, operation_state: state, operation_description: description } = row;
      return {
        instance,
        operation:
          kind === null || state === null || description === null
            ? undefined
            : { kind, state, description, instanceId: instance.id, restartAt: row.restart_at ?? undefined },
      };
    },

    async cancelOperation(id, description) {
      await table()
        .where({ id, state: 'in progress' })
        .update({ state: 'failed', description, finished_at: new Date(), lease_until: null });
      await table().where({ id }).increment('fence', 1);
      await notify(connection, channels.finished, id);
    },

    async deleteOldOperations(olderThanMs, limit) {
      const { rowCount } = await connection.raw<{ rowCount: number }>(deleteOldSql, { olderThanMs, limit });
      return rowCount;
    },

    async deleteOldRestarts(limit) {
      const { rowCount } = await connection.raw<{ rowCount: number }>(deleteOldRestartsSql, { limit });
      return rowCount;
    },

    async leaseOperation(worker, leaseMs) {
      const { rows } = await connection.raw<{ rows: OperationRow[] }>(leaseSql, { worker, leaseMs });
      return rows[0] === undefined ? undefined : toLeasedOperation(rows[0]);
    },

    renewLease: async (operation, leaseMs) =>
      (await leased(operation).update({ lease_until: interval(leaseMs) })) === 1,

    recordProgress: async (operation, progress) =>
      (await leased(operation).update({
        step: progress.step,
        description: progress.description,
        failure: progress.failure ?? null,
        attempts: progress.attempts,
      })) === 1,

    rescheduleOperation: async (operation, reschedule) =>
      (await leased(operation).update({
        step: reschedule.step,
        description: reschedule.description,
        failure: reschedule.failure ?? null,
        attempts: reschedule.attempts,
        run_after: interval(reschedule.afterMs),
        lease_owner: null,
        lease_until: null,
      })) === 1,

    finishOperation: (operation, outcome) =>
      connection.transaction(async (transaction) => {
        // The instance first, as a cancel locks it: the other order could deadlock.
        await transaction('instances').where({ id: operation.instanceId }).forNoKeyUpdate().first('id');
        const finished = await transaction<OperationRow>('operations')
          .where({ id: operation.id, state: 'in progress', fence: String(operation.fence) })
          .update({
            state: outcome.state,
            description: outcome.description,
            finished_at: new Date(),
            lease_until: null,
          });
        if (finished !== 1) return false;
        if (outcome.state === 'succeeded' && operation.target !== undefined) {
          await setHostTarget(transaction, operation.instanceId, operation.target);
          await setInstanceTarget(transaction, operation.instanceId, operation.target);
        }
        if (outcome.instance !== undefined) {
          await transaction('instances')
            .where({ id: operation.instanceId })
            .update({ state: outcome.instance, updated_at: new Date() });
        }
        await notify(transaction, channels.finished, operation.id);
        return true;
      }),

    async nextDueMs() {
      const { rows } = await connection.raw<{ rows: { ms: string | null }[] }>(nextDueSql);
      const ms = rows[0]?.ms;
      return ms === null || ms === undefined ? undefined : Math.max(0, Number(ms));
    },
  };
}
