import type { Knex } from 'knex';
import type {
  DifferenceOverview,
  DifferenceRecords,
  FoundDifference,
  HostDifferences,
  OwnerNote,
} from '../core/ports/host-differences.ts';
import { adoptHost } from './adopt-host.ts';
import { channels } from './channels.ts';
import { notify } from './notify.ts';
import { type DifferenceRow, type HostRow, type InstanceRow, toInstance } from './records/rows.ts';

/** A difference that has become another one is new: its grace period begins, and no decision about it is known. */
const replaceSql = `
  INSERT INTO host_differences AS former (host_id, kind, slot, first_port, ports, owner, owner_note)
    SELECT host_id, kind, slot, first_port, ports, owner, owner_note
    FROM jsonb_to_recordset(:found) AS found (
      host_id uuid, kind text, slot integer, first_port integer, ports integer, owner uuid, owner_note jsonb)
    ORDER BY host_id
  ON CONFLICT (host_id) DO UPDATE SET
    kind = excluded.kind, slot = excluded.slot, first_port = excluded.first_port, ports = excluded.ports,
    owner = excluded.owner, owner_note = excluded.owner_note,
    first_seen_at = CASE WHEN former.kind = excluded.kind THEN former.first_seen_at ELSE clock_timestamp() END,
    removal_requested_at = CASE WHEN former.kind = excluded.kind AND former.owner IS NOT DISTINCT FROM excluded.owner
      THEN former.removal_requested_at END`;

/** The worker's side. */
export function createDifferenceRecords(database: Knex): DifferenceRecords {
  return {
    async knownHosts(hostIds) {
      const rows: Pick<HostRow, 'id' | 'state' | 'slot' | 'instance_id'>[] = await database<HostRow>('hosts')
        .whereIn('id', [...hostIds])
        .select('id', 'state', 'slot', 'instance_id');
      return new Map(
        rows.map(({ id, state, slot, instance_id: instanceId }) => [
          id,
          { state, slot, instanceId: instanceId ?? undefined },
        ]),
      );
    },

    async replace(found) {
      if (found.length > 0) await database.raw(replaceSql, { found: JSON.stringify(found.map(toRow)) });
      await database('host_differences')
        .whereNotIn(
          'host_id',
          found.map(({ hostId }) => hostId),
        )
        .delete();
      const rows: (Pick<DifferenceRow, 'host_id' | 'kind' | 'removal_requested_at'> & { age: number })[] =
        await database('host_differences')
          .orderBy('first_seen_at')
          .select(
            'host_id',
            'kind',
            'removal_requested_at',
            database.raw('extract(epoch FROM clock_timestamp() - first_seen_at)::float8 AS age'),
          );
      return rows.map((row) => ({
        hostId: row.host_id,
        kind: row.kind,
        ageSeconds: row.age,
        removalRequested: row.removal_requested_at !== null,
      }));
    },

    async recordFailure(hostId, reason) {
      await database<DifferenceRow>('host_differences')
        .where({ host_id: hostId })
        .update({ failure: reason.slice(0, 1_000), removal_requested_at: null });
    },

    async ownerOf(hostId) {
      const row: (InstanceRow & { idle: OwnerNote['idle']; platform: string; key: string }) | undefined =
        await database('hosts')
          .join('instances', 'instances.id', 'hosts.instance_id')
          .join('tenants', 'tenants.id', 'instances.tenant_id')
          .join('platforms', 'platforms.id', 'instances.platform_id')
          .where('hosts.id', hostId)
          .first('instances.*', 'hosts.idle', 'tenants.key', 'platforms.name as platform');
      if (row === undefined) return undefined;
      const { expiresAt, ...instance } = toInstance(row);
      return {
        idle: row.idle,
        platform: row.platform,
        tenantKey: row.key,
        instance: { ...instance, expiresAt: expiresAt?.toISOString() },
      };
    },
  };
}

function toRow({ hostId, kind, slot, owner, note }: FoundDifference): object {
  const ports = note?.spec.publishedPorts;
  return {
    ...{ host_id: hostId, kind, slot, owner },
    ...{ first_port: ports?.first, ports: ports?.count, owner_note: note },
  };
}

/** No answer lists more differences than this. */
const maxDifferences = 1_000;

/** The operators' side. */
export function createHostDifferences(database: Knex): HostDifferences {
  return {
    async list() {
      const rows: (DifferenceRow & { osb_id: string | null })[] = await database('host_differences')
        .leftJoin('instances', 'instances.id', 'host_differences.owner')
        .orderBy('first_seen_at')
        .limit(maxDifferences)
        .select('host_differences.*', 'instances.osb_id');
      return rows.map(toOverview);
    },

    async requestRemoval(hostId) {
      const changed = await database<DifferenceRow>('host_differences')
        .where({ host_id: hostId })
        .update({ removal_requested_at: database.raw('clock_timestamp()'), failure: null });
      await notify(database, channels.differences, hostId);
      return changed === 1;
    },

    adopt: (hostId) => database.transaction((transaction) => adoptHost(transaction, hostId)),
  };
}

function toOverview(row: DifferenceRow & { osb_id: string | null }): DifferenceOverview {
  const { host_id: host, kind, owner_note: note } = row;
  return {
    host,
    kind,
    slot: row.slot ?? undefined,
    instance: note?.instance.osbId ?? row.osb_id ?? row.owner ?? undefined,
    firstSeenAt: row.first_seen_at,
    canBeAdopted: note !== null && (kind === 'owned' || kind === 'disputed'),
    removalRequested: row.removal_requested_at !== null,
    failure: row.failure ?? undefined,
  };
}
