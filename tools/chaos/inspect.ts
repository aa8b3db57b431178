import { readdir } from 'node:fs/promises';
import path from 'node:path';
import tls from 'node:tls';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import { isOfTemplate, residueOf } from '../lib/residue.ts';
import { openHostFiles } from '../../src/hypervisors/simulated/host-files.ts';
import type { Site } from './site.ts';

interface Row {
  readonly [column: string]: unknown;
}

/**
 * Holds what is on record against what exists, on a site on which nothing is under way.
 * @returns every promise that is not kept, in words; empty where all are.
 */
export async function inspect(site: Site): Promise<string[]> {
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
    (row) => `an instance has not the hosts that it should: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT osb_id, state FROM instances WHERE state NOT IN ('ready', 'failed', 'expired', 'deleted')`,
    (row) => `an instance is left in between: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT h.id, h.state, h.engine_port FROM hosts h JOIN instances i ON i.id = h.instance_id
      WHERE i.state = 'ready' AND h.state <> 'destroyed' AND (h.state <> 'running' OR h.engine_port IS NULL)`,
    (row) => `the host of a ready instance does not run: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT s.slot, s.host_id FROM slots s LEFT JOIN hosts h ON h.id = s.host_id AND h.state <> 'destroyed'
      WHERE s.host_id IS NOT NULL AND h.id IS NULL`,
    (row) => `a slot is held for no host: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT h.id, h.slot FROM hosts h LEFT JOIN slots s ON s.host_id = h.id
      WHERE h.state <> 'destroyed' AND s.slot IS DISTINCT FROM h.slot`,
    (row) => `a host has a slot that is not held for it: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT b.osb_id, i.state, h.id AS host FROM bindings b JOIN instances i ON i.id = b.instance_id
       LEFT JOIN hosts h ON h.instance_id = i.id AND h.state <> 'destroyed'
      WHERE b.state = 'live' AND (i.state <> 'ready' OR h.id IS NULL)`,
    (row) => `a binding has outlived its instance or its host: ${JSON.stringify(row)}`,
  );
  await complain(
    `SELECT id, reserved_plan FROM hosts WHERE state <> 'destroyed' AND reserved_plan IS NOT NULL`,
    (row) => `room is reserved for an update that has ended: ${JSON.stringify(row)}`,
  );
  await complain(miscounted, (row) => `a count of what hosts use is not their sum: ${JSON.stringify(row)}`);
  for (const [what, sql] of Object.entries(leftovers)) {
    await complain(sql, (row) => `${what} is left over: ${JSON.stringify(row)}`);
  }

  const onRecord = await rows(`SELECT id, state, power FROM hosts WHERE state <> 'destroyed' ORDER BY id`);
  const known = onRecord.map(({ id }) => String(id));
  const asleep = onRecord.filter(({ power }) => power === 'suspended').map(({ id }) => String(id));
  const existing = await hostsThatExist(site);
  for (const id of existing)
    if (!known.includes(id)) found.push(`a host exists that is not on record: ${id}`);
  for (const id of known) if (!existing.includes(id)) found.push(`a host on record does not exist: ${id}`);
  if (site.settings.hypervisor === 'qemu') {
    found.push(...(await machineResidue(site, known, asleep)));
  } else {
    for (const { id, power, state } of onRecord) {
      // What nobody has claimed yet is held, and not paused.
      if (state !== 'running') continue;
      const seen = (await openHostFiles(site.settings.stateDirectory).readHost(String(id)))?.vm?.power;
      if (seen !== power) found.push(`host ${String(id)} is ${String(power)} on record, and ${String(seen)}`);
    }
  }
  return found;
}

/** Counts of quotas next to what they count (migrations/011-quotas.ts); a scope without hosts counts zero. */
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

/** Rows that somebody made to be taken away again, by what they are. */
const leftovers = {
  'the request for a certificate of a gateway that has died long ago': `
    SELECT id, created_at FROM certificate_requests WHERE created_at < clock_timestamp() - interval '3 minutes'`,
  'a request to wake a host, or to put it to sleep,': 'SELECT * FROM power_requests',
  'the row of a gateway that has died long ago': `
    SELECT id, lease_until FROM gateways WHERE lease_until < clock_timestamp() - interval '3 minutes'`,
  'an acknowledgement of a revocation that nobody waits for': `
    SELECT a.* FROM revocation_acknowledgements a JOIN bindings b ON b.id = a.binding_id
     WHERE b.settled_at < clock_timestamp() - interval '1 minute'`,
};

async function hostsThatExist({ settings }: Site): Promise<string[]> {
  const { stateDirectory, hypervisor } = settings;
  const parts = hypervisor === 'simulated' ? ['simulated', 'hosts'] : ['hosts'];
  return (await readdir(path.join(stateDirectory, ...parts)).catch(() => [])).sort();
}

/** What is on the machine of hosts that are not on record, and what is there more than once of one that is. */
async function machineResidue(
  site: Site,
  known: readonly string[],
  asleep: readonly string[],
): Promise<string[]> {
  const slots = await site
    .database<{ slot: number }>('slots')
    .whereIn('host_id', [...known])
    .select('slot');
  const lines = (await residueOf(site.id)).filter((line) => !isOfTemplate(line));
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
    // One that is suspended is a file; one that is paused is a process like any other.
    const count = seen.get(id) ?? 0;
    if (asleep.includes(id) && count > 0) found.push(`host ${id} is suspended on record, and has a process`);
    else if (!asleep.includes(id) && count !== 1) found.push(`host ${id} has ${count} machines`);
  }
  if (known.length === 0) {
    for (const line of lines.filter((one) => one.startsWith('nft'))) found.push(`left over: ${line}`);
  }
  return found;
}

/**
 * Whether a gateway lets somebody with these credentials through to an engine, which answers.
 * @returns `accepted`, `refused` where it does not let them in, or `unreachable` where none listens.
 */
export function knock(
  port: number,
  credentials: Credentials,
): Promise<'accepted' | 'refused' | 'unreachable'> {
  return new Promise((resolve) => {
    let connected = false;
    let answer = '';
    const end = () => {
      socket.destroy();
      if (/^HTTP\/1\.1 200/.test(answer)) resolve('accepted');
      else resolve(connected ? 'refused' : 'unreachable');
    };
    const socket = tls.connect(
      {
        host: '127.0.0.1',
        port,
        ca: credentials.ca,
        cert: credentials.cert,
        key: credentials.key,
        servername: 'localhost',
      },
      () => socket.write('GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n'),
    );
    socket.setTimeout(5_000, end);
    socket.once('connect', () => (connected = true));
    socket.setEncoding('latin1').on('data', (text: string) => (answer += text));
    socket.once('error', end);
    socket.once('close', end);
  });
}
