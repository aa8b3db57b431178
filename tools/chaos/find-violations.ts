import { errorMessage } from '../../src/lib/error-message.ts';
import { isAboutTemplate, residueOf } from '../lib/residue.ts';
import { openHostFiles } from '../../src/hypervisors/simulated/host-files.ts';
import { hostsThatExist, ownerOnRecord } from './host-records.ts';
import type { ChaosInstallation } from './installation.ts';

interface Row {
  readonly [column: string]: unknown;
}

/**
 * Compares the database with what exists, on an installation on which no operation is running.
 * @returns descriptions of all violated promises; empty if there are none.
 */
export async function findViolations(site: ChaosInstallation): Promise<string[]> {
  const found: string[] = [];
  const rows = async (sql: string) => (await site.database.raw<{ rows: Row[] }>(sql)).rows;
  const complain = async (sql: string, tell: (row: Row) => string) => {
    for (const row of await rows(sql)) found.push(tell(row));
  };
  await complain(
    `SELECT id, kind, step, fence, lease_owner FROM operations WHERE state = 'in progress'`,
    (row) => `an operation never ended: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT i.osb_id, i.state, count(h.id) AS hosts
       FROM instances i LEFT JOIN hosts h ON h.instance_id = i.id AND h.state <> 'destroyed'
      GROUP BY i.id HAVING count(h.id) <> (CASE WHEN i.state = 'ready' THEN 1 ELSE 0 END)`,
    (row) => `an instance has a wrong number of hosts: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT osb_id, state FROM instances WHERE state NOT IN ('ready', 'failed', 'expired', 'deleted')`,
    (row) => `an instance is stuck in a transitional state: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT h.id, h.state, h.engine_port FROM hosts h JOIN instances i ON i.id = h.instance_id
      WHERE i.state = 'ready' AND h.state <> 'destroyed' AND (h.state <> 'running' OR h.engine_port IS NULL)`,
    (row) => `the host of a ready instance does not run: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT s.slot, s.host_id FROM slots s LEFT JOIN hosts h ON h.id = s.host_id AND h.state <> 'destroyed'
      WHERE s.host_id IS NOT NULL AND h.id IS NULL`,
    (row) => `a slot is taken but has no host: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT h.id, h.slot FROM hosts h LEFT JOIN slots s ON s.host_id = h.id
      WHERE h.state <> 'destroyed' AND s.slot IS DISTINCT FROM h.slot`,
    (row) => `a host has a slot that is not recorded for it: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT b.osb_id, i.state, h.id AS host FROM bindings b JOIN instances i ON i.id = b.instance_id
       LEFT JOIN hosts h ON h.instance_id = i.id AND h.state <> 'destroyed'
      WHERE b.state = 'live' AND (i.state <> 'ready' OR h.id IS NULL)`,
    (row) => `a live binding has no ready instance or no host: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT id, reserved_plan FROM hosts WHERE state <> 'destroyed' AND reserved_plan IS NOT NULL`,
    (row) => `usage is still reserved for an update that has ended: ${JSON.stringify(row)}`,
  );
  await complain(miscounted, (row) => `a usage count is not the sum over the hosts: ${JSON.stringify(row)}`);
  for (const [what, sql] of Object.entries(leftovers)) {
    await complain(sql, (row) => `${what} is left over: ${JSON.stringify(row)}`);
  }

  const recorded = await rows(
    `SELECT id, state, power, instance_id FROM hosts WHERE state <> 'destroyed' ORDER BY id`,
  );
  const known = recorded.map(({ id }) => String(id));
  const suspended = recorded.filter(({ power }) => power === 'suspended').map(({ id }) => String(id));
  const existing = await hostsThatExist(site.settings);
  for (const id of existing)
    if (!known.includes(id)) found.push(`a host exists that is not in the database: ${id}`);
  for (const id of known)
    if (!existing.includes(id)) found.push(`a host in the database does not exist: ${id}`);
  for (const { id, instance_id: instance } of recorded.filter((one) =>
    existing.includes(String(one['id'])),
  )) {
    const owner = await ownerOnRecord(site.settings, String(id)).catch(errorMessage);
    if ((owner ?? null) !== instance)
      found.push(
        `host ${String(id)} is of ${String(instance)} in the database, and of ${owner} by its own record`,
      );
  }
  if (site.settings.hypervisor === 'qemu') {
    found.push(...(await nodeResidue(site, known, suspended)));
  } else {
    for (const { id, power, state } of recorded) {
      // A parked host is not paused in the sense of `power`.
      if (state !== 'running') continue;
      const seen = (await openHostFiles(site.settings.stateDirectory).readHost(String(id)))?.vm?.power;
      if (seen !== power)
        found.push(`host ${String(id)} is ${String(power)} in the database, but ${String(seen)}`);
    }
  }
  return found;
}

/** Usage counts beside the sums over hosts (migrations/011-quotas.ts); a scope without hosts counts zero. */
const miscounted = `
  WITH sums AS (
    SELECT usage.scope, sum(usage.instances) AS instances, sum(usage.vcpus) AS vcpus,
      sum(usage.memory_mib) AS memory_mib, sum(usage.disk_gib) AS disk_gib,
      sum(usage.published_ports) AS published_ports
    FROM hosts, host_usage(hosts) AS usage GROUP BY usage.scope)
  SELECT scope, row_to_json(counted) AS counted, row_to_json(sums) AS sum
    FROM quota_usage AS counted FULL JOIN sums USING (scope)
   WHERE (coalesce(counted.instances, 0), coalesce(counted.vcpus, 0), coalesce(counted.memory_mib, 0),
      coalesce(counted.disk_gib, 0), coalesce(counted.published_ports, 0))
     IS DISTINCT FROM (coalesce(sums.instances, 0), coalesce(sums.vcpus, 0), coalesce(sums.memory_mib, 0),
      coalesce(sums.disk_gib, 0), coalesce(sums.published_ports, 0))`;

/** Queries for temporary rows that should have been deleted. */
const leftovers = {
  'a certificate request of a gateway that died long ago': `
    SELECT id, created_at FROM certificate_requests WHERE created_at < clock_timestamp() - interval '3 minutes'`,
  'a power request': 'SELECT * FROM power_requests',
  'a difference between hosts and records': 'SELECT host_id, kind, failure FROM host_differences',
  'the row of a gateway that died long ago': `
    SELECT id, lease_until FROM gateways WHERE lease_until < clock_timestamp() - interval '3 minutes'`,
  'an acknowledgement of a revocation that nothing waits for': `
    SELECT a.* FROM revocation_acknowledgements a JOIN bindings b ON b.id = a.binding_id
     WHERE b.settled_at < clock_timestamp() - interval '1 minute'`,
};

/** Traces on the node of hosts that are not in the database, and hosts with a wrong number of processes. */
async function nodeResidue(
  site: ChaosInstallation,
  known: readonly string[],
  suspended: readonly string[],
): Promise<string[]> {
  const slots = await site
    .database<{ slot: number }>('slots')
    .whereIn('host_id', [...known])
    .select('slot');
  const lines = (await residueOf(site.id)).filter((line) => !isAboutTemplate(line));
  const found: string[] = [];
  const seen = new Map<string, number>();
  for (const line of lines) {
    const id = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/.exec(line)?.[0];
    const slot = /^ip: (?:berth-\w{4}-|bh\w{4}s)(\d+)/.exec(line)?.[1];
    if (id !== undefined && !known.includes(id)) found.push(`left over: ${line}`);
    if (slot !== undefined && !slots.some((one) => String(one.slot) === slot))
      found.push(`left over: ${line}`);
    if (line.startsWith('process') && id !== undefined) seen.set(id, (seen.get(id) ?? 0) + 1);
  }
  for (const id of known) {
    // A suspended host is a file; a paused one has a process like any other.
    const count = seen.get(id) ?? 0;
    if (suspended.includes(id) && count > 0)
      found.push(`host ${id} is suspended in the database, but has a process`);
    else if (!suspended.includes(id) && count !== 1) found.push(`host ${id} has ${count} QEMU processes`);
  }
  if (known.length === 0) {
    for (const line of lines.filter((one) => one.startsWith('nft'))) found.push(`left over: ${line}`);
  }
  return found;
}
