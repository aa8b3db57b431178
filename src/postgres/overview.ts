import type { Knex } from 'knex';
import { tenantName } from '../core/tenant-name.ts';
import type { Counts, HostOverview, Overview } from '../core/ports/overview.ts';
import { expiryOf } from '../lib/certificate-expiry.ts';
import { trustedCertificateAuthorities } from './certificate-authorities.ts';
import { nodeRules } from './node-rules.ts';
import { createUsageRecords, noUsage } from './records/usage.ts';
import { readTotals, type Total } from './totals.ts';
import type { HostRow, InstanceRow } from './records/rows.ts';
import { formatPortRange } from '../lib/port-range.ts';
import { isWorkerAlive } from './workers.ts';

/** The operators' view of Postgres. */
export function createOverview(database: Knex): Overview {
  return {
    hosts: () => hosts(database),
    counts: () => counts(database),
    restoredPlans: () => restoredPlans(database),
    nodeRules: () => nodeRules(database),
  };
}

interface HostOverviewRow extends HostRow {
  osb_id: string | null;
  instance_state: InstanceRow['state'] | null;
  tenant_key: string | null;
  instance_name: string | null;
  organization_name: string | null;
  space_name: string | null;
  namespace: string | null;
  live_bindings: number;
  restarts: number | null;
  restart_at: Date | null;
  integrity: HostOverview['integrity'] | null;
  created_at: Date;
  expires_at: Date | null;
}

/** The words of `berth hosts`. */
const integritySql = `CASE WHEN hosts.quarantined_at IS NOT NULL THEN 'quarantined' WHEN host_checks.drift <> '[]' THEN 'drift'
  WHEN host_checks.failed_at IS NOT NULL THEN 'check failed' WHEN host_checks.checked_at IS NOT NULL THEN 'intact' END`;

/** A name out of an instance's context, which is the platform's and may contain anything: null unless it is text. */
const contextName = (field: string) =>
  `CASE WHEN jsonb_typeof(instances.context -> '${field}') = 'string'
     THEN nullif(left(instances.context ->> '${field}', 255), '') END AS ${field}`;

/** No answer lists more hosts than this. */
const maxHosts = 1_000;

async function hosts(database: Knex): ReturnType<Overview['hosts']> {
  const rows: HostOverviewRow[] = await database('hosts')
    .leftJoin('instances', 'instances.id', 'hosts.instance_id')
    .leftJoin('tenants', 'tenants.id', 'hosts.tenant_id')
    .leftJoin('host_checks', 'host_checks.host_id', 'hosts.id')
    .leftJoin('host_restarts', 'host_restarts.host_id', 'hosts.id')
    .whereNot('hosts.state', 'destroyed')
    .orderBy('hosts.slot')
    .limit(maxHosts)
    .select(
      'hosts.*',
      'instances.osb_id',
      'instances.state as instance_state',
      'tenants.key as tenant_key',
      'instances.expires_at',
      'host_restarts.restarts',
      database.raw('CASE WHEN ended_at IS NOT NULL THEN retry_at END AS restart_at'),
      database.raw(`${integritySql} AS integrity`),
      ...['instance_name', 'organization_name', 'space_name', 'namespace'].map((field) =>
        database.raw(contextName(field)),
      ),
      database.raw(
        `(SELECT count(*)::integer FROM bindings WHERE bindings.instance_id = hosts.instance_id AND bindings.state = 'live') AS live_bindings`,
      ),
    );
  return rows.map((row) => ({
    host: row.id,
    state: row.state,
    problem: row.problem ?? undefined,
    plan: row.plan_name,
    instance: row.osb_id ?? undefined,
    instanceState: row.instance_state ?? undefined,
    tenant: row.tenant_key ?? undefined,
    instanceName: row.instance_name ?? undefined,
    tenantName: row.tenant_key === null ? undefined : tenantName(row.tenant_key, namesIn(row)),
    startedFrom: row.started_from ?? undefined,
    imageVersion: row.image_version ?? undefined,
    power: row.power,
    halted: row.state === 'running' ? (row.halted ?? undefined) : undefined,
    engine: row.engine_host === null ? undefined : `${row.engine_host}:${row.engine_port ?? 0}`,
    publishedPorts: formatPortRange({ first: row.first_port, count: row.ports }),
    integrity: row.integrity ?? undefined,
    liveBindings: row.live_bindings,
    createdAt: row.created_at,
    pausedRestart: row.restart_at === null ? undefined : { restarts: row.restarts ?? 0, at: row.restart_at },
    memoryLostAt: row.memory_lost_at ?? undefined,
    expiresAt: row.expires_at ?? undefined,
  }));
}

const namesIn = (row: HostOverviewRow) => ({
  organizationName: row.organization_name ?? undefined,
  spaceName: row.space_name ?? undefined,
  namespace: row.namespace ?? undefined,
});

async function restoredPlans(database: Knex): ReturnType<Overview['restoredPlans']> {
  const rows: { templates: string[] }[] = await database('workers')
    .whereRaw(isWorkerAlive)
    .select('templates');
  return new Set(rows.flatMap(({ templates }) => templates));
}

/** Reads nothing that grows with what has ended. */
async function counts(database: Knex): Promise<Counts> {
  const rows = async <T>(sql: string): Promise<T[]> => (await database.raw<{ rows: T[] }>(sql)).rows;
  const [
    instances,
    byPlan,
    operations,
    bindings,
    totals,
    expiring,
    checked,
    slots,
    refusals,
    restarts,
    gateways,
    gatewayCounts,
    workers,
    authorities,
    usage,
    differences,
    halted,
  ] = await Promise.all([
    rows<Counts['instances'][number]>(
      `SELECT state, count(*)::integer AS count FROM instances WHERE state <> 'deleted' GROUP BY state`,
    ),
    rows<Counts['hosts'][number]>(
      `SELECT CASE WHEN state = 'running' AND power <> 'running' THEN power ELSE state END AS state,
           plan_name AS plan, count(*)::integer AS count FROM hosts WHERE state <> 'destroyed' GROUP BY 1, 2`,
    ),
    rows<Counts['operations'][number]>(
      `SELECT kind, state, count(*)::integer AS count, 0 AS seconds FROM operations
         WHERE state = 'in progress' GROUP BY kind, state`,
    ),
    rows<Counts['bindings'][number]>(
      `SELECT state, count(*)::integer AS count FROM bindings WHERE state = 'live' GROUP BY state`,
    ),
    readTotals(database),
    rows<Counts['expiring'][number]>(
      `SELECT within, count(instances.id)::integer AS count FROM unnest(ARRAY['1 hour', '1 day', '7 days']) AS within
       LEFT JOIN instances ON state = 'ready' AND expires_at < clock_timestamp() + within::interval GROUP BY within`,
    ),
    rows<Counts['integrity'][number]>(
      `SELECT coalesce(${integritySql}, 'not checked') AS result, count(*)::integer AS count,
           coalesce(extract(epoch FROM clock_timestamp() - min(checked_at)), 0)::float8 AS "oldestSeconds"
         FROM hosts LEFT JOIN host_checks ON host_id = hosts.id WHERE hosts.state IN ('running', 'parked') GROUP BY 1`,
    ),
    rows<{ count: number }>(`SELECT count(*)::integer AS count FROM slots
         WHERE host_id IS NULL AND (rests_until IS NULL OR rests_until <= clock_timestamp())`),
    rows<{ count: number }>(
      `SELECT count(*)::integer AS count FROM hosts
         WHERE state = 'running' AND power <> 'running' AND wake_refused_at IS NOT NULL`,
    ),
    rows<{ count: number }>(
      'SELECT count(*)::integer AS count FROM host_restarts WHERE ended_at IS NOT NULL',
    ),
    rows<Counts['gateways']>(
      `SELECT count(*)::integer AS live, coalesce(sum(connections), 0)::integer AS connections
       FROM gateways WHERE lease_until > clock_timestamp()`,
    ),
    rows<Counts['gatewayCounts'][number]>('SELECT event, reason, count::float8 FROM gateway_counts'),
    rows<Counts['workers'][number]>(
      `SELECT name, hypervisor, templates, memory_available_mib AS "memoryAvailableMib",
         disk_available_mib::float8 AS "diskAvailableMib", disk_capacity_mib::float8 AS "diskCapacityMib",
         disk_reserve_mib::float8 AS "diskReserveMib",
         preparing, preparation_problem AS "preparationProblem",
         ${isWorkerAlive} AS alive FROM workers`,
    ),
    trustedCertificateAuthorities(database),
    createUsageRecords(database).usage(['total']),
    rows<Counts['differences'][number]>(
      `SELECT kind, count(host_id)::integer AS count
       FROM unnest(ARRAY['leftover', 'ownerless', 'owned', 'unreadable', 'disputed', 'missing']) AS kind
       LEFT JOIN host_differences USING (kind) GROUP BY kind`,
    ),
    rows<Counts['halted'][number]>(
      `SELECT halted AS reason, count(*)::integer AS count FROM hosts
         WHERE state = 'running' AND halted IS NOT NULL GROUP BY halted`,
    ),
  ]);
  const total = (subject: Total['subject']) => totals.filter((row) => row.subject === subject);
  return {
    instances: [...instances, ...total('instances')],
    hosts: byPlan,
    made: total('hosts').map(({ state, kind, count }) => ({ from: state, plan: kind, count })),
    operations: [...operations, ...total('operations')],
    bindings: [...bindings, ...total('bindings')],
    expiring,
    integrity: checked,
    certificateAuthorities: authorities.map(({ name, state, certificatePem }) => ({
      ...{ name, state },
      expiresAt: expiryOf(certificatePem),
    })),
    usage: usage.get('total') ?? noUsage,
    wakesRefused: refusals[0]?.count ?? 0,
    restartsPaused: restarts[0]?.count ?? 0,
    differences,
    freeSlots: slots[0]?.count ?? 0,
    gateways: gateways[0] ?? { live: 0, connections: 0 },
    gatewayCounts,
    workers,
    halted,
  };
}
