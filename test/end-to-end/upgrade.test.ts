import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { builtInCatalog } from '../../src/core/catalog/built-in.ts';
import { compiled } from '../support/build.ts';
import { eventually } from '../support/eventually.ts';
import { inDatabase, query } from '../support/postgres.ts';
import { makeSimulatedProcess, secretFile, type SimulatedProcess } from '../support/simulated-process.ts';

/** A broker as an operator runs it, which is stopped and started again. */
const server = inject('postgres');
const name = `upgrade_${randomBytes(4).toString('hex')}`;
const urlFile = `/tmp/berth-${name}`;
/** With DATABASE_URL_FILE: an external Postgres; without it, the embedded one. */
const settings: Record<string, string> = { DATABASE_URL_FILE: urlFile, BERTH_SYNC_WAIT_MS: '0' };
let broker: SimulatedProcess;

beforeAll(async () => {
  await query(server, `CREATE DATABASE ${name}`);
  await writeFile(urlFile, inDatabase(server, name));
  broker = await makeSimulatedProcess(1, settings);
  await broker.start();
}, 180_000);
afterAll(async () => {
  await broker.dispose();
  await query(server, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  for (const role of ['api', 'gateway', 'worker'])
    await query(server, `DROP ROLE IF EXISTS berth_${name}_${role}`);
  await rm(urlFile, { force: true });
});

async function osb(method: string, route: string, body?: object): Promise<{ status: number; body: unknown }> {
  const { broker: user } = JSON.parse(await secretFile(broker, 'credentials.json')) as {
    broker: { username: string; password: string };
  };
  const response = await fetch(`http://127.0.0.1:${broker.port}/v2/${route}`, {
    method,
    headers: {
      Authorization: `Basic ${Buffer.from(`${user.username}:${user.password}`).toString('base64')}`,
      'X-Broker-API-Version': '2.17',
      'Content-Type': 'application/json',
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: await response.json() };
}

async function berth(...args: string[]): Promise<{ code: number; output: string }> {
  const program = path.join(await compiled(), 'cli', 'main.js');
  const env = {
    PATH: process.env['PATH'],
    BERTH_STATE_DIR: broker.stateDirectory,
    BERTH_HYPERVISOR: 'simulated',
    BERTH_MGMT_PORT: String(broker.mgmtPort),
    ...settings,
  };
  return promisify(execFile)(process.execPath, [program, ...args], { env }).then(
    ({ stdout }) => ({ code: 0, output: stdout }),
    (error: unknown) => {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { code, output: stdout + stderr };
    },
  );
}

const [offering] = builtInCatalog.offerings;
const ids = { service_id: offering?.id, plan_id: offering?.plans[0]?.id };
const hints = `service_id=${ids.service_id ?? ''}&plan_id=${ids.plan_id ?? ''}`;
const created = randomUUID();
const state = async (id: string) =>
  ((await osb('GET', `service_instances/${id}/last_operation`)).body as { state: string }).state;

/** As Cloud Controller does, with the version that the catalog announces. */
async function create(id: string): Promise<number> {
  const catalog = (await osb('GET', 'catalog')).body as {
    services: { id: string; plans: { id: string; maintenance_info?: { version: string } }[] }[];
  };
  const plan = catalog.services[0]?.plans[0];
  expect(plan?.maintenance_info?.version).toMatch(/^1\.0\.0\+/);
  const { status } = await osb('PUT', `service_instances/${id}?accepts_incomplete=true`, {
    ...ids,
    organization_guid: 'org',
    space_guid: 'space',
    maintenance_info: { version: plan?.maintenance_info?.version },
  });
  return status;
}

// Fails if the version is read from workers' rows: the last worker has deleted its row.
it('restart: a create is accepted while no worker runs, and is done once one does', async () => {
  await broker.stop();
  await broker.start('api');
  expect(await create(created)).toBe(202);
  await broker.stop();
  await broker.start();
  await eventually('the create has succeeded', async () => (await state(created)) === 'succeeded');
}, 120_000);

// Fails without the history that no worker has confirmed, or without the journal: the binding stays live.
it('backup and restore: from a running external Postgres into the embedded one, without a loss of revocations', async () => {
  const file = path.join(broker.stateDirectory, 'backup');
  const binding = `service_instances/${created}/service_bindings/bound`;
  expect((await osb('PUT', binding, ids)).status).toBe(201);
  expect(await berth('backup', file)).toMatchObject({ code: 0 });
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  const running = await berth('restore', file);
  expect([running.code, running.output]).toEqual([1, expect.stringContaining('another Berth')]);
  const forgotten = randomUUID();
  expect(await create(forgotten)).toBe(202);
  await eventually('the second create has succeeded', async () => (await state(forgotten)) === 'succeeded');
  expect((await osb('DELETE', `${binding}?${hints}`)).status).toBe(200);
  await broker.stop();

  delete settings['DATABASE_URL_FILE'];
  const restored = await berth('restore', file);
  expect(restored).toMatchObject({ code: 0, output: expect.stringContaining('Restored') as string });
  await broker.start();
  expect((await osb('GET', `service_instances/${created}`)).status).toBe(200);
  expect((await osb('GET', `service_instances/${forgotten}`)).status).toBe(404);
  expect((await osb('GET', binding)).status).toBe(404);
  // Beside the forgotten instance's host there can be those that were made for the pool after the backup.
  expect(broker.output()).toMatch(/1 revocations replayed, [1-9]\d* hosts differ/);
  // Disputed if the backup knew the host as a pooled one.
  const reported = /"difference":"(owned|disputed)"/;
  await eventually('the worker reports the host', () => reported.test(broker.output()));
  await broker.stop();
}, 180_000);

it('embedded Postgres: data of another major version is refused with the commands to run', async () => {
  const stopped = path.join(broker.stateDirectory, 'stopped');
  expect(await berth('backup', stopped)).toMatchObject({ code: 0 });
  const version = path.join(broker.stateDirectory, 'postgres', 'data', 'PG_VERSION');
  const written = await readFile(version, 'utf8');
  await writeFile(version, '13\n');
  const refusal = ['of version 13', 'berth -- backup FILE', 'data.13', 'berth -- restore FILE'];
  await expect(broker.start()).rejects.toThrow(new RegExp(refusal.join('[^]*')));
  expect(await berth('restore', stopped)).toMatchObject({ code: 1 });
  await writeFile(version, written);
  expect(await berth('restore', stopped)).toMatchObject({ code: 0 });
}, 120_000);
