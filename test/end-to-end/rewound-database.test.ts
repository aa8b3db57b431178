import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import tls from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Credentials } from '../../src/http/osb/credentials-body.ts';
import {
  ask,
  copyFiles,
  makeReplica,
  makeServer,
  type PostgresServer,
} from '../../tools/lib/postgres-servers.ts';
import { eventually } from '../support/eventually.ts';
import { makeSimulatedProcess, secretFile, type SimulatedProcess } from '../support/simulated-process.ts';

/** A broker as an operator runs it, over servers of its operator's that fail over and are restored under it. */
const ids = { service_id: 'rewound-service', plan_id: 'rewound-plan' };
const poolSize = 2;
const catalog = {
  // Never larger, however many creates there were.
  pool: { size: poolSize, max_size: poolSize },
  offerings: [
    {
      ...{ id: ids.service_id, name: 'container-host', description: 'A container host' },
      plans: [
        {
          ...{ id: ids.plan_id, name: 'small', description: 'Small', free: true, pool: poolSize },
          host: { vcpus: 1, memory_mib: 768, disk_gib: 4, published_ports: 10 },
        },
      ],
    },
  ],
};
let directory: string;
let server: PostgresServer;
let broker: SimulatedProcess;
const at = (name: string) => path.join(directory, name);

beforeAll(async () => {
  directory = await mkdtemp('/tmp/berth-rw-');
  await chmod(directory, 0o755);
  server = await makeServer(at('one'), at('address'));
  await writeFile(at('url'), server.url);
  await writeFile(at('catalog'), JSON.stringify(catalog));
  broker = await makeSimulatedProcess(1, {
    ...{ DATABASE_URL_FILE: at('url'), BERTH_CATALOG: at('catalog'), BERTH_MEMORY_RESERVE_MIB: '0' },
  });
  await broker.start();
}, 120_000);
afterAll(async () => {
  await broker.dispose();
  await server.stop();
  await rm(directory, { recursive: true, force: true });
});

interface Answer<T> {
  readonly status: number;
  readonly body: T;
}

async function request<T>(method: string, route: string, body?: object): Promise<Answer<T>> {
  const isMgmt = route.startsWith('/mgmt');
  const users = JSON.parse(await secretFile(broker, 'credentials.json')) as Record<
    'broker' | 'mgmt',
    { username: string; password: string }
  >;
  const { username, password } = users[isMgmt ? 'mgmt' : 'broker'];
  const response = await fetch(`http://127.0.0.1:${isMgmt ? broker.mgmtPort : broker.port}${route}`, {
    method,
    headers: {
      Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
      'X-Broker-API-Version': '2.17',
      'Content-Type': 'application/json',
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return { status: response.status, body: (await response.json()) as T };
}

const instance = (id: string) => `/v2/service_instances/${id}`;
const create = (id: string) =>
  request('PUT', `${instance(id)}?accepts_incomplete=true`, {
    ...{ ...ids, organization_guid: id, space_guid: 'space' },
  });
const bindingOf = (id: string) => `${instance(id)}/service_bindings/binding`;

/** A host by the platform's id of its instance. */
const hostOf = (id: string) =>
  ask<string>(
    server.url,
    `SELECT hosts.id AS answer FROM hosts JOIN instances ON instances.id = instance_id WHERE osb_id = '${id}'`,
  );
const parked = () => ask<string>(server.url, "SELECT count(*) AS answer FROM hosts WHERE state = 'parked'");
const poolIsFull = () => eventually('the pool is full', async () => Number(await parked()) === poolSize);
const auditOf = (action: string) =>
  ask<string>(server.url, `SELECT count(*) AS answer FROM audit WHERE action = '${action}'`);

/** What the gateway answers a client with these credentials: "200", "403" and so on; "cut" if it closes the connection. */
function connect({ cert, key }: Credentials): Promise<string> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = tls.connect({
      ...{ host: '127.0.0.1', port: broker.gatewayPort, cert, key, rejectUnauthorized: false },
    });
    socket.on('secureConnect', () =>
      socket.write('GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n'),
    );
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      resolve(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? 'cut');
    });
  });
}

/** Connects again and again until stopped; collects the answers. */
function keepConnecting(credentials: Credentials): () => Promise<ReadonlySet<string>> {
  const answers = new Set<string>();
  const stopping = new AbortController();
  const running = (async () => {
    while (!stopping.signal.aborted) answers.add(await connect(credentials));
  })();
  return async () => {
    stopping.abort();
    await running;
    return answers;
  };
}

async function bind(id: string): Promise<Credentials> {
  const { status, body } = await request<{ credentials: Credentials }>('PUT', bindingOf(id), ids);
  expect(status).toBe(201);
  return body.credentials;
}

/**
 * Has a binding revoked and a host of the pool claimed that the database will have lost, and then checks that neither has
 * come back.
 */
async function rewind(prepare: () => Promise<void>, lose: () => Promise<void>): Promise<void> {
  const [kept, later, last] = [randomUUID(), randomUUID(), randomUUID()];
  await poolIsFull();
  expect((await create(kept)).status).toBe(201);
  await poolIsFull();
  const credentials = await bind(kept);
  expect(await connect(credentials)).toBe('200');
  await prepare();
  const events = Number(await auditOf('database.confirm'));
  // From here on the database forgets.
  expect(
    (await request('DELETE', `${bindingOf(kept)}?service_id=${ids.service_id}&plan_id=${ids.plan_id}`))
      .status,
  ).toBe(200);
  expect(await connect(credentials)).toBe('403');
  expect((await create(later)).status).toBe(201);
  const claimed = await hostOf(later);
  expect(claimed).toBeDefined();

  const stop = keepConnecting(credentials);
  await lose();
  expect(await hostOf(later)).toBeUndefined();
  await eventually('a create succeeds again', async () => {
    const { status } = await create(last).catch(() => ({ status: 0 }));
    // While the database is away or not confirmed, a change is refused; nothing else may go wrong. 202, 200: a request
    // before has been cut off with the connection.
    expect([0, 200, 201, 202, 503]).toContain(status);
    return status === 200 || status === 201;
  });
  expect(await hostOf(last)).not.toBe(claimed);
  await eventually(
    'the event is on record',
    async () => Number(await auditOf('database.confirm')) === events + 1,
  );
  const again = await bind(last);
  await eventually('the gateway serves again', async () => (await connect(again)) === '200');
  // Not once in all that time: refused while the gateway was in sync, out of sync, or without the process.
  expect([...(await stop())].filter((one) => one === '200')).toEqual([]);
  expect(await connect(credentials)).toBe('403');
  expect(Number(await auditOf('binding.revoke_again'))).toBeGreaterThan(0);
  const hosts = await readdir(path.join(broker.stateDirectory, 'simulated', 'hosts'));
  expect(hosts).toContain(claimed);
}

// Fails without the journal, and without the mark: the server, its timeline and the database are those that it was.
it('a rewound database: of restored files no revoked binding connects, and no claimed host is handed out again', async () => {
  await rewind(
    async () => {
      // Also a plain restart, which changes nothing.
      const [log, events] = [broker.output().length, await auditOf('database.confirm')];
      await server.stop();
      await copyFiles(at('one/data'), at('backup'));
      await server.start();
      const before = Number(await readFile(path.join(broker.stateDirectory, 'database-mark'), 'utf8'));
      await eventually('the mark advances again', async () => {
        const text = await readFile(path.join(broker.stateDirectory, 'database-mark'), 'utf8');
        return Number(text) > before;
      });
      await eventually('all is well again', async () => {
        const { status } = await request('GET', '/mgmt/health').catch(() => ({ status: 0 }));
        return status === 200;
      });
      expect(await auditOf('database.confirm')).toBe(events);
      expect(broker.output().slice(log)).not.toContain('has gone back in time');
    },
    async () => {
      await server.stop();
      await copyFiles(at('backup'), at('one/data'));
      await server.start();
    },
  );
}, 180_000);

// Fails without the history (the mark is as if the replica had it), and without the journal.
it('a rewound database: of a promoted replica no revoked binding connects, and no claimed host is handed out again', async () => {
  await rewind(
    async () => {
      await makeReplica(server, at('two'), at('standby'));
    },
    async () => {
      await server.stop();
      await writeFile(path.join(broker.stateDirectory, 'database-mark'), '0\n');
      server = await makeServer(at('two'), at('address'));
      await ask(server.url, 'SELECT pg_promote()');
    },
  );
}, 180_000);
