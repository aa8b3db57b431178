import { readdir } from 'node:fs/promises';
import path from 'node:path';
import tls from 'node:tls';
import type { Credentials } from '../core/credentials.ts';
import { isOfTemplate, residueOf } from '../demo/residue.ts';
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
    `SELECT b.osb_id, i.state FROM bindings b JOIN instances i ON i.id = b.instance_id
      WHERE b.state = 'live' AND i.state <> 'ready'`,
    (row) => `a binding has outlived its instance: ${JSON.stringify(row)}`,
  );

  const known = (await rows(`SELECT id, state FROM hosts WHERE state <> 'destroyed' ORDER BY id`)).map(
    ({ id }) => String(id),
  );
  const existing = await hostsThatExist(site);
  for (const id of existing)
    if (!known.includes(id)) found.push(`a host exists that is not on record: ${id}`);
  for (const id of known) if (!existing.includes(id)) found.push(`a host on record does not exist: ${id}`);
  if (site.settings.hypervisor === 'qemu') found.push(...(await machineResidue(site, known)));
  return found;
}

async function hostsThatExist({ settings }: Site): Promise<string[]> {
  const { stateDirectory, hypervisor } = settings;
  const parts = hypervisor === 'simulated' ? ['simulated', 'hosts'] : ['hosts'];
  return (await readdir(path.join(stateDirectory, ...parts)).catch(() => [])).sort();
}

/** What is on the machine of hosts that are not on record, and what is there more than once of one that is. */
async function machineResidue(site: Site, known: readonly string[]): Promise<string[]> {
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
  for (const [id, count] of seen) if (count > 1) found.push(`host ${id} has ${count} machines`);
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
