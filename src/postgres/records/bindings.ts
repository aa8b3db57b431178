import type { Knex } from 'knex';
import type { BindingRecords } from '../../core/ports/binding-records.ts';
import { channels } from '../channels.ts';
import { notify } from '../notify.ts';
import { type BindingRow, toBinding } from './rows.ts';

export function createBindingRecords(connection: Knex): BindingRecords {
  /** A revocation deletes the private key. */
  const revoked = { state: 'revoked' as const, sealed_credentials: null, revoked_at: connection.fn.now() };
  return {
    async binding(instanceId, osbId) {
      const row: BindingRow | undefined = await connection<BindingRow>('bindings')
        .where({ instance_id: instanceId, osb_id: osbId, id_released_at: null })
        .first();
      return row === undefined ? undefined : toBinding(row);
    },

    async insertBinding(binding) {
      const inserted: unknown[] = await connection('bindings')
        .insert({
          id: binding.id,
          osb_id: binding.osbId,
          instance_id: binding.instanceId,
          tenant_id: binding.tenantId,
          serial: binding.serial,
          client_ca: binding.caIds.client,
          server_ca: binding.caIds.server,
          certificate: binding.certificate,
          sealed_credentials: binding.sealedCredentials,
          app_guid: binding.request.appGuid ?? null,
          parameters: JSON.stringify(binding.request.parameters),
          predecessor: binding.request.predecessor ?? null,
          state: 'live',
          created_at: binding.createdAt,
          expires_at: binding.expiresAt,
        })
        .onConflict(connection.raw('(instance_id, osb_id) WHERE id_released_at IS NULL'))
        .ignore()
        .returning('id');
      return inserted.length === 1;
    },

    async releaseBindingId(id, restMs) {
      const released = await connection<BindingRow>('bindings')
        .where({ id, state: 'revoked' })
        .where(
          'revoked_at',
          '<=',
          connection.raw(`clock_timestamp() - ? * interval '1 millisecond'`, [restMs]),
        )
        .update({ id_released_at: connection.fn.now() });
      return released === 1;
    },

    async revokeBinding(id) {
      await connection.transaction(async (transaction) => {
        await transaction('bindings').where({ id, state: 'live' }).update(revoked);
        // Also if it was revoked before: gateways acknowledge each notification.
        await notify(transaction, channels.bindings, id);
      });
    },

    async revokeBindingsOf(instanceId) {
      return connection.transaction(async (transaction) => {
        await transaction('bindings').where({ instance_id: instanceId, state: 'live' }).update(revoked);
        const rows: { id: string }[] = await transaction('bindings')
          .where({ instance_id: instanceId })
          .whereNull('settled_at')
          .select('id');
        for (const { id } of rows) await notify(transaction, channels.bindings, id);
        return rows.map(({ id }) => id);
      });
    },
  };
}
