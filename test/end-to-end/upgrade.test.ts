import { randomBytes, randomUUID } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { builtInCatalog } from '../../src/core/catalog/built-in.ts';
import { eventually } from '../support/eventually.ts';
import { inDatabase, query } from '../support/postgres.ts';
import { makeSimulatedProcess, secretFile, type SimulatedProcess } from '../support/simulated-process.ts';

/** A broker as an operator runs it, which is stopped and started again. */
const server = inject('postgres');
const name = `upgrade_${randomBytes(4).toString('hex')}`;
const urlFile = `/tmp/berth-${name}`;
let broker: SimulatedProcess;

beforeAll(async () => {
  await query(server, `CREATE DATABASE ${name}`);
  await writeFile(urlFile, inDatabase(server, name));
  broker = await makeSimulatedProcess(1, { DATABASE_URL_FILE: urlFile, BERTH_SYNC_WAIT_MS: '0' });
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

const [offering] = builtInCatalog.offerings;

/** As Cloud Controller does, with the version that the catalog announces. */
async function create(id: string): Promise<number> {
  const catalog = (await osb('GET', 'catalog')).body as {
    services: { id: string; plans: { id: string; maintenance_info?: { version: string } }[] }[];
  };
  const plan = catalog.services[0]?.plans[0];
  expect(plan?.maintenance_info?.version).toMatch(/^1\.0\.0\+/);
  const { status } = await osb('PUT', `service_instances/${id}?accepts_incomplete=true`, {
    service_id: offering?.id,
    plan_id: plan?.id,
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
  const id = randomUUID();
  expect(await create(id)).toBe(202);
  await broker.stop();
  await broker.start();
  const state = async () =>
    ((await osb('GET', `service_instances/${id}/last_operation`)).body as { state: string }).state;
  await eventually('the create has succeeded', async () => (await state()) === 'succeeded');
}, 120_000);
