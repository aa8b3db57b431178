/* eslint-disable max-lines -- request rows and table rights are read through one broker and one set of helpers */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import express from 'express';
import supertest from 'supertest';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import type { AuditEntry, AuditRecord } from '../../src/core/ports/audit.ts';
import { auditRequests } from '../../src/http/audit.ts';
import { errorHandler } from '../../src/http/errors.ts';
import { createAuditRetention } from '../../src/postgres/audit.ts';
import { openDatabase } from '../../src/postgres/database.ts';
import { databaseRoles } from '../../src/postgres/server/grants.ts';
import {
  bindBody,
  binding,
  credentials,
  hints,
  ids,
  instance,
  makeTestBroker,
  operator,
  provisionBody,
  type TestBroker,
} from '../support/broker.ts';
import type { Logger } from '../../src/lib/logger.ts';
import { silentLogger } from '../support/logger.ts';

let broker: TestBroker;

interface AuditRow {
  detail: { refusals_not_recorded?: number } | null;
}
beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'));
  broker.startWorker();
});
afterAll(() => broker.stop());

const identityHeader = (value: object) =>
  `cloudfoundry ${Buffer.from(JSON.stringify(value)).toString('base64')}`;
const mgmt = (route: string) => supertest(broker.mgmt).get(route).auth(operator.username, operator.password);
const trailOf = async (id: string) => {
  const body: unknown = (await mgmt(`/mgmt/audit?instance=${encodeURIComponent(id)}`).expect(200)).body;
  return (body as { audit: AuditRecord[] }).audit;
};
const create = (id: string) => broker.ask('put', `${instance(id)}?accepts_incomplete=true`);

describe('audit trail', () => {
  it('audit: records who did what, when, from where and with which result over the life of an instance', async () => {
    const id = randomUUID();
    const began = Date.now();
    await create(id)
      .set('X-Broker-API-Originating-Identity', identityHeader({ user_id: 'ann' }))
      .set('X-Broker-API-Request-Identity', 'request-1')
      .send(provisionBody)
      .expect(201);
    await broker.ask('put', binding(id, 'b-1')).send(bindBody).expect(201);
    await broker.ask('delete', `${binding(id, 'b-1')}?${hints}`).expect(200);
    await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`).expect(200);

    const trail = await trailOf(id);
    expect(
      trail.map(({ action, outcome, recordedBy }) => [action, outcome, recordedBy.replace(/.*_/, '')]),
    ).toEqual([
      // The worker's row is written before the waiting request is answered.
      ['provision-end', 'succeeded', 'worker'],
      ['provision', 'succeeded', 'api'],
      ['certificate-issue', 'succeeded', 'api'],
      ['bind', 'succeeded', 'api'],
      ['certificate-revoke', 'succeeded', 'api'],
      ['unbind', 'succeeded', 'api'],
      ['deprovision-end', 'succeeded', 'worker'],
      ['deprovision', 'succeeded', 'api'],
    ]);
    expect(trail[1]).toMatchObject({
      actor: 'platform',
      platform: 'test',
      identity: { platform: 'cloudfoundry', value: { user_id: 'ann' } },
      instanceId: id,
      remoteAddress: expect.stringMatching(/127\.0\.0\.1$/) as string,
      requestId: 'request-1',
      status: 201,
      detail: { plan_id: ids.plan },
    });
    expect(trail[3]).toMatchObject({ bindingId: 'b-1', status: 201 });
    expect(trail[2]?.detail).toHaveProperty('serial');
    for (const { at } of trail) {
      expect(new Date(at).getTime()).toBeGreaterThanOrEqual(began - 1000);
      expect(new Date(at).getTime()).toBeLessThanOrEqual(Date.now() + 1000);
    }
  });

  it('audit: records refused requests with the reason, however early they were refused', async () => {
    const id = randomUUID();
    await create(id)
      .send({ ...provisionBody, plan_id: 'none' })
      .expect(400);
    await create(id).set('X-Broker-API-Version', '1.0').send(provisionBody).expect(412);
    await create(id).set('X-Broker-API-Originating-Identity', 'x').send(provisionBody).expect(400);
    await create(id).set('Content-Type', 'application/json').send('{').expect(400);
    await broker.ask('patch', instance(id)).send(bindBody);
    await broker.ask('delete', `${binding(id, 'b')}?${hints}`).expect(410);
    await supertest(broker.app).put(instance(id)).auth('x', 'y').send({}).expect(401);
    const trail = await trailOf(id);
    expect(trail.map(({ action, status, outcome }) => [action, status, outcome])).toEqual([
      ['provision', 400, 'refused'],
      ['provision', 412, 'refused'],
      ['provision', 400, 'refused'],
      ['provision', 400, 'refused'],
      ['update', trail[4]?.status, 'refused'],
      ['unbind', 410, 'refused'],
      ['provision', 401, 'refused'],
    ]);
    for (const { error } of trail) expect(error).toMatch(/\w/);
    expect(trail.at(-1)?.platform).toBeUndefined();
  });

  it('audit: records the names of parameters, never their values', async () => {
    const id = randomUUID();
    await create(id)
      .send({ ...provisionBody, parameters: { surprise: 'hush-hush' } })
      .expect(400);
    const [row] = await trailOf(id);
    expect(row?.detail).toEqual({ plan_id: ids.plan, parameters: ['surprise'] });
    expect(JSON.stringify(row)).not.toContain('hush-hush');
  });

  it.each([
    ['a NUL in the id', '%00id', {}],
    ['an unpaired surrogate and NULs in the identity', 'surrogate', { user_id: '\ud800\u0000', '\u0000': 1 }],
    ['a huge identity', 'huge', { user_id: 'x'.repeat(9_000) }],
    ['an id that is not UTF-8', '%ff', {}],
    ['an id of emoji, none of which may be cut in half', '😀'.repeat(300), {}],
  ])('audit: records a request with %s', async (_, id, identity) => {
    const route = id.includes('%') ? id : encodeURIComponent(id);
    const before = await broker.database('audit').count<{ count: string }[]>();
    const answer = await broker
      .ask('put', `/v2/service_instances/${route}?accepts_incomplete=true`)
      .set('X-Broker-API-Originating-Identity', identityHeader(identity))
      .send({});
    expect(answer.status).toBe(400);
    const after = await broker.database('audit').count<{ count: string }[]>();
    expect(Number(after[0]?.count) - Number(before[0]?.count)).toBe(1);
  });

  it('audit: records changes by operators, but no reads', async () => {
    const name = `p-${randomUUID().slice(0, 8)}`;
    await supertest(broker.mgmt)
      .put(`/mgmt/platforms/${name}`)
      .auth(operator.username, operator.password)
      .expect(201);
    await mgmt('/mgmt/hosts').expect(200);
    const body: unknown = (await mgmt('/mgmt/audit?limit=1000')).body;
    const rows = (body as { audit: AuditRecord[] }).audit.filter(({ actor }) => actor === 'operator');
    expect(rows).toMatchObject([
      { action: `PUT /mgmt/platforms/${name}`, status: 201, outcome: 'succeeded' },
    ]);
  });

  it('audit: a path in another case does not bypass it, because no route matches', async () => {
    const id = randomUUID();
    await broker
      .ask('put', `/V2/Service_Instances/${id}?accepts_incomplete=true`)
      .send(provisionBody)
      .expect(404);
    expect(await broker.database('instances').where({ osb_id: id })).toEqual([]);
    await supertest(broker.mgmt)
      .put('/MGMT/platforms/bypassed')
      .auth(operator.username, operator.password)
      .expect(404);
    expect(await broker.database('platforms').where({ name: 'bypassed' })).toEqual([]);
  });

  it('audit: GET returns the newest rows, up to the limit', async () => {
    const id = randomUUID();
    for (const version of ['1.1', '1.2', '1.3'])
      await create(id).set('X-Broker-API-Version', version).send({});
    const few = (await mgmt(`/mgmt/audit?instance=${id}&limit=2`)).body as { audit: AuditRecord[] };
    expect(few.audit.map(({ error }) => /1\.\d/.exec(error ?? '')?.[0])).toEqual(['1.2', '1.3']);
    const future = await mgmt(`/mgmt/audit?since=${new Date(Date.now() + 60_000).toISOString()}`);
    expect(future.body).toEqual({ audit: [] });
    for (const wrong of [
      'limit=0',
      'limit=1001',
      'limit=x',
      'since=x',
      'instance=a&instance=b',
      'instance=%00',
    ]) {
      const answer = await mgmt(`/mgmt/audit?${wrong}`);
      expect([wrong, answer.status]).toEqual([wrong, 400]);
      expect((answer.body as { description: string }).description).toContain(wrong.split('=')[0]);
    }
  });
});

it('audit: neither a late handler nor an error changes an answer that waits for its row', async () => {
  let writeRow: () => void = () => undefined;
  const row = new Promise<void>((resolve) => (writeRow = resolve));
  const app = express();
  app.use(
    auditRequests(
      { record: () => row, list: () => Promise.resolve([]) },
      () => ({ actor: 'platform', action: 'provision' }),
      silentLogger,
      60_000,
    ),
  );
  app.put('/late', async (_request, response) => {
    response.status(503).json({ description: 'It took too long.' });
    await new Promise((resolve) => setImmediate(resolve));
    setImmediate(writeRow);
    response.status(201).json({ description: 'A late answer, with a body of another length.' });
  });
  app.put('/failing', async (_request, response) => {
    response.status(503).json({ description: 'It took too long.' });
    await new Promise((resolve) => setImmediate(resolve));
    setImmediate(writeRow);
    throw new Error('it failed after all');
  });
  app.use(errorHandler(silentLogger));
  for (const route of ['/late', '/failing']) {
    const answer = await supertest(app).put(route);
    expect([answer.status, answer.body]).toEqual([503, { description: 'It took too long.' }]);
  }
});

// Fails if the address is read when the answer is sent.
it('audit: records the address of a client that disconnected before the answer', async () => {
  const recorded = new Promise<AuditEntry>((resolve) => {
    const app = express();
    const trail = {
      record: (entry: AuditEntry) => {
        resolve(entry);
        return Promise.resolve();
      },
      list: () => Promise.resolve([]),
    };
    const describeAll = () => ({ actor: 'platform', action: 'provision' }) as const;
    app.use(auditRequests(trail, describeAll, silentLogger, 60_000));
    app.put('/', async (request, response) => {
      const gone = once(request.socket, 'close');
      request.socket.destroy();
      await gone;
      response.status(201).json({});
    });
    void supertest(app)
      .put('/')
      .catch(() => undefined);
  });
  expect((await recorded).remoteAddress).toMatch(/127\.0\.0\.1$/);
});

it('audit: counts a flood of wrong passwords instead of recording each', async () => {
  const other = await makeTestBroker(inject('postgres'));
  try {
    const count = 80;
    for (let index = 0; index < count; index += 1) {
      await supertest(other.app).put(instance('i')).auth('x', 'y').send({}).expect(401);
    }
    const rows = await other.database<AuditRow>('audit');
    // A new minute may have begun, which allows more rows.
    expect(rows.length).toBeLessThan(count);
    expect(rows.length).toBeGreaterThanOrEqual(60);
    await other.ask('put', instance('i')).send({}).expect(400);
    const all = await other.database<AuditRow>('audit');
    const missed = all.reduce((sum, { detail }) => sum + (detail?.refusals_not_recorded ?? 0), 0);
    expect(missed + rows.length).toBe(count);
  } finally {
    await other.stop();
  }
});

// Fails if only 401 and 429 are sampled, or if the log has no sample.
describe.each([
  ['OSB API', 'app', '/v2/service_instances/i'],
  ['management API', 'mgmt', '/mgmt/platforms/p'],
] as const)('unauthenticated requests to the %s', (_, name, path) => {
  it('audit, log: of refusals of every kind only a sample is recorded and logged, with the number of the others', async () => {
    const lines: { notLogged?: number; status?: number }[] = [];
    const logger: Logger = {
      ...silentLogger,
      info: (details) => lines.push(details),
    };
    const other = await makeTestBroker(inject('postgres'), { logger });
    try {
      const app = other[name];
      const kinds: readonly ((request: ReturnType<typeof supertest>) => supertest.Test)[] = [
        (to) => to.put(path),
        (to) => to.put(path).auth('x', 'y'),
        (to) => to.put(path).type('application/json').send('{'),
        (to) =>
          to
            .put(path)
            .type('application/json')
            .send(`{"a":"${'x'.repeat(300_000)}"}`),
        (to) => to.put(path).set('X-Broker-API-Version', '1.0'),
        (to) => to.put(path).set('X-Broker-API-Originating-Identity', 'x'),
        (to) => to.patch(`${path}/%ff`),
        (to) => to.put(`${path}%00`),
        (to) => to.put(`${path}/unknown/${'x'.repeat(8_000)}`),
        (to) => to.post(path),
      ];
      const headers = Object.fromEntries(Array.from({ length: 101 }, (_entry, index) => [`x-${index}`, '1']));
      let asked = 0;
      for (; asked < 320; asked += 1) {
        // Half of them are refused before authentication: more than may be recorded.
        const kind = kinds[asked % kinds.length] as (typeof kinds)[number];
        const sent = asked % 2 === 0 ? kind(supertest(app)) : supertest(app).delete(path).set(headers);
        const { status } = await sent.catch(() => ({ status: 401 }));
        expect([401, 431]).toContain(status);
      }
      const rows = await other.database<AuditRow>('audit');
      // A minute may end meanwhile, which allows as many rows again.
      expect(rows.length).toBeLessThanOrEqual(120);
      expect(rows.length).toBeGreaterThan(0);
      const answered = lines.filter(({ status }) => status !== undefined);
      expect(answered.length).toBeLessThanOrEqual(120);
      const { username, password } = name === 'app' ? credentials : operator;
      await supertest(app).get('/none').auth(username, password);
      const logged = lines.filter(({ status }) => status !== undefined);
      const missed = logged.reduce((sum, { notLogged }) => sum + (notLogged ?? 0), 0);
      expect(logged.length + missed).toBe(asked + 1);
    } finally {
      await other.stop();
    }
  });
});

describe('audit table', () => {
  it.each(databaseRoles)(
    'audit: the database role of the %s can neither change nor delete a row',
    async (role) => {
      const database = openDatabase(broker.urls[role], { maxConnections: 1 });
      try {
        for (const text of [
          `UPDATE audit SET action = 'nothing'`,
          'DELETE FROM audit',
          'TRUNCATE audit',
          `SELECT audit_forget(now() - interval '31 days')`,
          // Neither with another time nor as another role.
          `INSERT INTO audit (actor, action, outcome, at) VALUES ('berth', 'x', 'failed', now() - interval '1 year')`,
          `INSERT INTO audit (actor, action, outcome, recorded_by) VALUES ('berth', 'x', 'failed', 'somebody')`,
        ]) {
          await expect(database.raw(text), text).rejects.toThrow(/permission denied|must be owner/);
        }
      } finally {
        await database.destroy();
      }
    },
  );

  it('audit: the owner can delete rows only by the retention function, which records that', async () => {
    const { database } = broker;
    for (const text of [`UPDATE audit SET action = 'x'`, 'DELETE FROM audit', 'TRUNCATE audit']) {
      await expect(database.raw(text), text).rejects.toThrow('only added to');
    }
    await expect(createAuditRetention(database).deleteOlderThan(29)).rejects.toThrow('30 days');
    await database.raw(
      `INSERT INTO audit (at, actor, action, outcome) VALUES (now() - interval '50 days', 'berth', 'old', 'failed')`,
    );
    const before = (await database('audit')).length;
    expect(await createAuditRetention(database).deleteOlderThan(60)).toBe(0);
    expect(await createAuditRetention(database).deleteOlderThan(40)).toBe(1);
    expect(await database('audit')).toHaveLength(before);
    expect(await database('audit').where({ action: 'old' })).toEqual([]);
    expect(await database('audit').where({ action: 'audit-forget' })).toHaveLength(1);
    await expect(database.raw('DELETE FROM audit')).rejects.toThrow('only added to');
  });
});
