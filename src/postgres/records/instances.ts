import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import type { Instance } from '../../core/model/instance.ts';
import type { InstanceRecords, RowLock } from '../../core/ports/instance-records.ts';
import { type InstanceFields, instanceColumns, type InstanceRow, toInstance } from './rows.ts';
import { runPrepared } from '../prepared.ts';
import { setInstanceTarget } from './update-target.ts';

const byOsbIdSql = `
  SELECT ${instanceColumns.join(', ')} FROM instances
  WHERE platform_id = :platformId AND osb_id = :osbId AND id_released_at IS NULL`;

const lockSql = { lock: 'FOR NO KEY UPDATE', share: 'FOR SHARE' } as const satisfies Record<RowLock, string>;

export function createInstanceRecords(connection: Knex): InstanceRecords {
  async function find(where: Partial<InstanceRow>, lock: RowLock | undefined): Promise<Instance | undefined> {
    const query = connection<InstanceRow>('instances').where(where).first();
    if (lock === 'lock') void query.forNoKeyUpdate();
    if (lock === 'share') void query.forShare();
    const row = await query;
    return row === undefined ? undefined : toInstance(row);
  }

  return {
    async findOrCreateTenant(platformId, key) {
      const find = () =>
        connection<{ id: string; platform_id: string; key: string }>('tenants')
          .where({ platform_id: platformId, key })
          .first('id');
      let row = await find();
      if (row === undefined) {
        await connection('tenants')
          .insert({ id: randomUUID(), platform_id: platformId, key })
          .onConflict(['platform_id', 'key'])
          .ignore();
        row = await find();
      }
      if (row === undefined) throw new Error(`the tenant ${key} was neither inserted nor found`);
      return { id: row.id, platformId, key };
    },

    async instance(platformId, osbId, lock) {
      const [row] = await runPrepared<InstanceFields>(
        connection,
        `instance-${lock ?? 'unlocked'}`,
        `${byOsbIdSql} ${lock === undefined ? '' : lockSql[lock]}`,
        { platformId, osbId },
      );
      return row && toInstance(row);
    },

    async orgOfSpace(platformId, spaceGuid) {
      const row = await connection<InstanceRow>('instances')
        .where({ platform_id: platformId })
        .whereRaw(`context->>'space_guid' = ?`, [spaceGuid])
        .orderBy('created_at', 'desc')
        .first<{ org: string | null } | undefined>(connection.raw(`context->>'organization_guid' AS org`));
      return row?.org ?? undefined;
    },

    instanceById: (id, lock) => find({ id }, lock),

    async insertInstance(instance) {
      await connection('instances').insert({
        id: instance.id,
        platform_id: instance.platformId,
        tenant_id: instance.tenantId,
        osb_id: instance.osbId,
        service_id: instance.serviceId,
        plan_id: instance.planId,
        parameters: JSON.stringify(instance.parameters),
        context: JSON.stringify(instance.context),
        state: 'creating',
        expires_at: instance.expiresAt ?? null,
      });
    },

    async releaseInstanceId(id, restMs) {
      const released = await connection<InstanceRow>('instances')
        .where({ id, state: 'deleted' })
        .where(
          'updated_at',
          '<=',
          connection.raw(`clock_timestamp() - ? * interval '1 millisecond'`, [restMs]),
        )
        .update({ id_released_at: connection.fn.now() });
      return released === 1;
    },

    async setInstanceState(id, state) {
      await connection<InstanceRow>('instances').where({ id }).update({ state, updated_at: new Date() });
    },

    async setInstanceContext(id, context) {
      await connection<InstanceRow>('instances').where({ id }).update({ context, updated_at: new Date() });
    },

    setInstanceTarget: (id, target) => setInstanceTarget(connection, id, target),

    async instancesWithFailedDelete(sinceMs) {
      const rows: { id: string }[] = await connection('hosts')
        .join('instances', 'instances.id', 'hosts.instance_id')
        .whereNot('hosts.state', 'destroyed')
        .where('instances.state', 'failed')
        .where(
          'instances.updated_at',
          '<=',
          connection.raw(`clock_timestamp() - ? * interval '1 millisecond'`, [sinceMs]),
        )
        .limit(100)
        .select('instances.id');
      return rows.map(({ id }) => id);
    },

    async instancesDueToExpire() {
      const rows: { id: string }[] = await connection<InstanceRow>('instances')
        .where({ state: 'ready' })
        .where('expires_at', '<=', connection.raw('clock_timestamp()'))
        .orderBy('expires_at')
        .limit(100)
        .select('id');
      return rows.map(({ id }) => id);
    },

    async lockInstanceId(platformId, osbId) {
      await connection.raw('SELECT pg_advisory_xact_lock(hashtextextended(?, 0))', [
        `${platformId} ${osbId}`,
      ]);
    },

    async recordEarlyDelete(platformId, osbId) {
      await connection('early_deletes')
        .where('deleted_at', '<', connection.raw(`now() - interval '1 hour'`))
        .delete();
      await connection('early_deletes')
        .insert({ platform_id: platformId, osb_id: osbId })
        .onConflict(['platform_id', 'osb_id'])
        .merge({ deleted_at: connection.fn.now() });
    },

    async wasDeletedEarly(platformId, osbId) {
      const row = (await connection('early_deletes')
        .where({ platform_id: platformId, osb_id: osbId })
        .andWhere('deleted_at', '>=', connection.raw(`now() - interval '1 hour'`))
        .first('osb_id')) as unknown;
      return row !== undefined;
    },
  };
}
