import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, inject, it, vi } from 'vitest';
import { runHosts } from '../../src/cli/hosts.ts';
import type { Settings } from '../../src/config/settings.ts';
import { instance, makeTestBroker, operator, provisionBody, type TestBroker } from '../support/broker.ts';

const orgGuid = '6f0c1d2e-0000-4000-8000-000000000001';
const spaceGuid = '90ab12cd-0000-4000-8000-000000000002';
const named = randomUUID();
const unnamed = randomUUID();
const hostile = randomUUID();

let broker: TestBroker;
let server: Server;
let settings: Settings;

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
  const provision = async (id: string, context: object) => {
    const body = { ...provisionBody, organization_guid: orgGuid, space_guid: spaceGuid, context };
    const { status } = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(body);
    expect(status).toBe(201);
  };
  const platform = 'cloudfoundry';
  await provision(named, {
    ...{ platform, organization_name: 'acme', space_name: 'dev', instance_name: 'my-host' },
  });
  await provision(unnamed, {});
  await provision(hostile, {
    ...{ platform, organization_name: `a\u001b[2J\n${'x'.repeat(10_000)}`, instance_name: 7 },
  });
  server = createServer(broker.mgmt).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const stateDirectory = await mkdtemp(path.join(tmpdir(), 'berth-cli-test-'));
  await writeFile(path.join(stateDirectory, 'credentials.json'), JSON.stringify({ mgmt: operator }));
  const { port } = server.address() as AddressInfo;
  settings = { stateDirectory, mgmtAddress: '127.0.0.1', mgmtPort: port } as Settings;
}, 60_000);

afterAll(async () => {
  await new Promise((resolve) => server.close(resolve));
  await rm(settings.stateDirectory, { recursive: true });
  await broker.stop();
});

async function outputOf(options: Parameters<typeof runHosts>[1]): Promise<string> {
  let output = '';
  const write = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    output += String(chunk);
    return true;
  });
  try {
    await runHosts(settings, options);
  } finally {
    write.mockRestore();
  }
  return output;
}

const linesOf = (output: string) => output.trimEnd().split('\n').slice(2);

it('berth hosts: shows names of org and instance, or shortened ids if the platform gave no names', async () => {
  const output = await outputOf({});
  const cells = linesOf(output).map((line) => line.split(/ {2,}/));
  expect(output.split('\n').slice(0, 2)).toEqual([
    'SIMULATED: there are no VMs.',
    expect.stringMatching(/^HOST +STATE +PLAN +TENANT +INSTANCE +INTEGRITY$/),
  ]);
  expect(cells.map(([, state, plan, tenant, name]) => [state, plan, tenant, name])).toEqual([
    ['running', 'small', 'acme', 'my-host'],
    ['running', 'small', orgGuid.slice(0, 8), unnamed.slice(0, 8)],
    ['running', 'small', expect.stringMatching(/^a\\u001b\[2J.*…$/), hostile.slice(0, 8)],
  ]);
});

it('berth hosts: fits a terminal of 80 columns and prints no control characters, whatever a name contains', async () => {
  const output = await outputOf({});
  for (const line of linesOf(output)) {
    expect(line.length).toBeLessThanOrEqual(80);
    expect(line).not.toMatch(/\p{Cc}/u);
  }
});

it('berth hosts --wide: adds full ids and all columns', async () => {
  const output = await outputOf({ wide: true });
  expect(output).toMatch(/TENANT ID .*INSTANCE ID .*BINDINGS .*IMAGE .*PORTS .*EXPIRES/);
  const [first] = linesOf(output);
  expect(first).toContain(`org:${orgGuid}`);
  expect(first).toContain(named);
  expect(first).toMatch(/^[0-9a-f-]{36} /);
  expect(first).toContain('20000-20009');
  for (const line of linesOf(output)) expect(line).not.toMatch(/\p{Cc}/u);
});

it('berth hosts --json: prints the hosts of the management API, names bounded', async () => {
  const hosts = JSON.parse(await outputOf({ json: true })) as Record<string, string | undefined>[];
  expect(hosts[0]).toMatchObject({
    ...{ instance: named, instanceName: 'my-host', tenant: JSON.stringify(['org', orgGuid]) },
    tenantName: 'acme',
  });
  expect(hosts[1]).not.toHaveProperty('tenantName');
  expect(hosts[1]).not.toHaveProperty('instanceName');
  expect(hosts[2]?.['tenantName']).toHaveLength(255);
  expect(hosts[2]).not.toHaveProperty('instanceName');
});
