import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { builtInCatalog } from '../../src/core/catalog/built-in.ts';
import { compiled } from '../support/build.ts';
import { eventually } from '../support/eventually.ts';
import { inDatabase, query } from '../support/postgres.ts';
import { makeSimulatedProcess, secretFile, type SimulatedProcess } from '../support/simulated-process.ts';

/** A broker as an operator runs it, over a server of its operator's, with the real CLI. */
const server = inject('postgres');
const name = `restored_${randomBytes(4).toString('hex')}`;
const databases = { live: `${name}_live`, backup: `${name}_backup`, empty: `${name}_empty` };
const urlFile = `/tmp/berth-${name}`;
const catalogFile = `${urlFile}.catalog.yaml`;
/** Without a pool, whose hosts would come and go while they are counted. */
const catalog = {
  offerings: builtInCatalog.offerings.map((offering) => ({
    ...offering,
    plans: offering.plans.map((plan) => ({ ...plan, pool: 0 })),
  })),
};
let broker: SimulatedProcess;

const use = (which: keyof typeof databases) => writeFile(urlFile, inDatabase(server, databases[which]));

beforeAll(async () => {
  await query(server, `CREATE DATABASE ${databases.live}`);
  await query(server, `CREATE DATABASE ${databases.empty}`);
  await use('live');
  await writeFile(catalogFile, JSON.stringify(catalog));
  broker = await makeSimulatedProcess(2, { DATABASE_URL_FILE: urlFile, BERTH_CATALOG: catalogFile });
});
afterAll(async () => {
  await broker.dispose();
  // Roles last: a copied database grants rights to those of the original.
  for (const one of Object.values(databases)) {
    await query(server, `DROP DATABASE IF EXISTS ${one} WITH (FORCE)`);
  }
  for (const one of Object.values(databases)) {
    for (const role of ['api', 'gateway', 'worker'])
      await query(server, `DROP ROLE IF EXISTS berth_${one}_${role}`);
  }
  await rm(urlFile, { force: true });
  await rm(catalogFile, { force: true });
});

async function osb(method: string, route: string, body?: object): Promise<number> {
  const { broker: user } = JSON.parse(await secretFile(broker, 'credentials.json')) as {
    broker: { username: string; password: string };
  };
  const response = await fetch(`http://127.0.0.1:${broker.port}/v2/service_instances/${route}`, {
    method,
    headers: {
      Authorization: `Basic ${Buffer.from(`${user.username}:${user.password}`).toString('base64')}`,
      'X-Broker-API-Version': '2.17',
      'Content-Type': 'application/json',
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  await response.text();
  return response.status;
}

const [offering] = builtInCatalog.offerings;
const ids = { service_id: offering?.id, plan_id: offering?.plans[0]?.id };
const create = (id: string) =>
  osb('PUT', `${id}?accepts_incomplete=true`, { ...ids, organization_guid: 'org', space_guid: 'space' });

async function berth(...args: string[]): Promise<{ code: number; output: string }> {
  const program = path.join(await compiled(), 'cli', 'main.js');
  const env = {
    PATH: process.env['PATH'],
    BERTH_STATE_DIR: broker.stateDirectory,
    BERTH_HYPERVISOR: 'simulated',
    BERTH_MGMT_PORT: String(broker.mgmtPort),
  };
  return promisify(execFile)(process.execPath, [program, ...args], { env }).then(
    ({ stdout }) => ({ code: 0, output: stdout }),
    (error: unknown) => {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { code, output: stdout + stderr };
    },
  );
}
const hosts = () => readdir(path.join(broker.stateDirectory, 'simulated', 'hosts'));

// Fails without the check of the installation (the empty database), and without orphans (the backup): hosts are lost.
it('a restored database: costs no host, and "berth reconcile" gives a forgotten one back or removes it', async () => {
  const [kept, adopted, removed] = [randomUUID(), randomUUID(), randomUUID()];
  await broker.start();
  expect(await create(kept)).toBe(201);
  await broker.stop();
  await query(server, `CREATE DATABASE ${databases.backup} TEMPLATE ${databases.live}`);
  const [keptHost] = await hosts();
  await broker.start();
  expect(await create(adopted)).toBe(201);
  const [adoptedHost = ''] = (await hosts()).filter((id) => id !== keptHost);
  expect(await create(removed)).toBe(201);
  const removedHost = (await hosts()).find((id) => id !== keptHost && id !== adoptedHost) ?? '';
  await broker.stop();
  const all = await hosts();

  await use('empty');
  await expect(broker.start()).rejects.toThrow('The database is empty');
  expect(await hosts()).toEqual(all);

  await use('backup');
  await broker.start();
  const listed = await eventually('both hosts are reported', async () => {
    const { code, output } = await berth('reconcile', '--dry-run');
    return code === 1 && [adoptedHost, removedHost].every((id) => output.includes(id)) ? output : undefined;
  });
  expect(listed).toContain('owned');
  expect(listed).not.toContain(keptHost);
  expect(await osb('GET', adopted)).toBe(404);
  expect((await berth('reconcile', '--adopt', adoptedHost)).output).toContain(`instance ${adopted} again`);
  expect(await osb('GET', adopted)).toBe(200);

  const unconfirmed = await berth('reconcile', '--remove', removedHost);
  expect(unconfirmed.output).toContain('--yes');
  expect(await hosts()).toEqual(all);
  expect(await berth('reconcile', '--remove', removedHost, '--yes')).toMatchObject({ code: 0 });
  expect(await hosts()).toEqual(all.filter((id) => id !== removedHost));
  await eventually('nothing differs', async () => (await berth('reconcile')).code === 0);
  const { output: audit } = await berth('audit', '--limit', '50');
  expect(audit).toContain(`POST /mgmt/reconcile/${adoptedHost}/adopt`);
  expect(audit).toContain(`DELETE /mgmt/reconcile/${removedHost}`);
}, 180_000);

// Fails if an unreadable record is an error: the worker ended, and the supervisor stopped everything.
it('a start with a damaged host record: reports its host, leaves it alone and serves all others', async () => {
  const [sound, damaged] = [randomUUID(), randomUUID()];
  // Without the test before.
  if (broker.pid() === 0) await broker.start();
  expect(await create(sound)).toBe(201);
  const before = await hosts();
  expect(await create(damaged)).toBe(201);
  const [host = ''] = (await hosts()).filter((id) => !before.includes(id));
  await broker.stop();
  const record = path.join(broker.stateDirectory, 'simulated', 'hosts', host, 'host.json');
  const text = await readFile(record, 'utf8');
  // As a power cut leaves it on some file systems.
  await writeFile(record, '');

  await broker.start();
  const reported = await eventually('the host is reported', async () => {
    const { code, output } = await berth('reconcile');
    return code === 1 && output.includes(host) ? output : undefined;
  });
  expect(reported).toContain('unreadable');
  expect(broker.output()).toContain('The record of a host is unreadable');
  expect(await osb('GET', sound)).toBe(200);
  const other = randomUUID();
  expect(await create(other)).toBe(201);
  for (const id of [sound, other]) {
    expect(
      await osb(
        'DELETE',
        `${id}?accepts_incomplete=true&service_id=${ids.service_id ?? ''}&plan_id=${ids.plan_id ?? ''}`,
      ),
    ).toBe(200);
  }
  expect(await readFile(record, 'utf8')).toBe('');

  await writeFile(record, text);
  await eventually('nothing differs', async () => (await berth('reconcile')).code === 0);
  expect(await osb('GET', damaged)).toBe(200);
}, 180_000);
