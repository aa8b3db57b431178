import type { Knex } from 'knex';
import type { AuditEntry, AuditRecord, AuditRetention, AuditTrail } from '../core/ports/audit.ts';

interface AuditRow {
  at: Date;
  recorded_by: string;
  actor: AuditEntry['actor'];
  platform: string | null;
  identity: AuditEntry['identity'] | null;
  action: string;
  instance_id: string | null;
  binding_id: string | null;
  remote_address: string | null;
  request_id: string | null;
  status: number | null;
  outcome: AuditEntry['outcome'];
  error: string | null;
  detail: AuditEntry['detail'] | null;
}

/** The audit trail in Postgres. */
export function createAuditTrail(database: Knex): AuditTrail {
  return {
    async record(entry) {
      await database('audit').insert({
        actor: entry.actor,
        platform: text(entry.platform, 255),
        identity: json(entry.identity),
        action: text(entry.action, 255),
        instance_id: text(entry.instanceId, 255),
        binding_id: text(entry.bindingId, 255),
        remote_address: text(entry.remoteAddress, 255),
        request_id: text(entry.requestId, 255),
        status: entry.status ?? null,
        outcome: entry.outcome,
        error: text(entry.error, 1000),
        detail: json(entry.detail),
      });
    },

    async list({ instanceId, since, limit }) {
      const query = database<AuditRow>('audit').orderBy('at', 'desc').limit(limit);
      if (instanceId !== undefined) void query.where({ instance_id: instanceId });
      if (since !== undefined) void query.where('at', '>=', since);
      const rows: AuditRow[] = await query;
      return rows.reverse().map(toRecord);
    },
  };
}

/** @param owner connected as the owner of the tables. */
export function createAuditRetention(owner: Knex): AuditRetention {
  return {
    async deleteOlderThan(days) {
      const { rows } = await owner.raw<{ rows: { forgotten: string }[] }>(
        "SELECT audit_forget(clock_timestamp() - ? * interval '1 day') AS forgotten",
        [days],
      );
      return Number(rows[0]?.forgotten ?? 0);
    },
  };
}

/** Postgres' `text` can't contain a NUL. Truncated by characters, which Postgres' `length` counts. */
function text(value: string | undefined, maxLength: number): string | null {
  if (value === undefined) return null;
  return Array.from(value.slice(0, 2 * maxLength).replaceAll('\0', '\ufffd'))
    .slice(0, maxLength)
    .join('');
}

const maxJsonBytes = 4096;

function json(value: object | undefined): string | null {
  if (value === undefined) return null;
  const encoded = JSON.stringify(value);
  return Buffer.byteLength(encoded) <= maxJsonBytes ? encoded : '{"cut":"longer than 4096 bytes"}';
}

function toRecord(row: AuditRow): AuditRecord {
  return {
    at: row.at,
    recordedBy: row.recorded_by,
    actor: row.actor,
    platform: row.platform ?? undefined,
    identity: row.identity ?? undefined,
    action: row.action,
    instanceId: row.instance_id ?? undefined,
    bindingId: row.binding_id ?? undefined,
    remoteAddress: row.remote_address ?? undefined,
    requestId: row.request_id ?? undefined,
    status: row.status ?? undefined,
    outcome: row.outcome,
    error: row.error ?? undefined,
    detail: row.detail ?? undefined,
  };
}
