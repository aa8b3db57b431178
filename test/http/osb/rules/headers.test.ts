/* eslint-disable max-lines -- one file per chapter of docs/osb.md, whose rules share one broker */
import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { longestAnswerMs } from '../../../../src/http/limits.ts';
import { binding, credentials, hints, ids, instance, provisionBody } from '../../../support/broker.ts';
import {
  accepting,
  asyncRequired,
  type OsbBroker,
  concurrencyError,
  maintenanceInfoConflict,
  makeOsbBroker,
} from '../../../support/osb-broker.ts';
import { eventually } from '../../../support/eventually.ts';
import { createLineLogger } from '../../../support/logger.ts';

const { logger, lines } = createLineLogger();
let on: OsbBroker;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'), { logger });
});
afterAll(() => on.stop());

const bare = (method: 'get' | 'put', route: string) =>
  supertest(on.broker.app)[method](route).auth(credentials.username, credentials.password);
const described = (body: unknown) => (body as { description: string }).description;
const putRaw = (body: string, type = 'application/json') =>
  on.broker
    .ask('put', `${instance('raw')}?${accepting}`)
    .set('Content-Type', type)
    .send(body);
const identity = (value: unknown) => `cloudfoundry ${Buffer.from(JSON.stringify(value)).toString('base64')}`;
const asIdentity = (value: string) => ({ headers: { 'X-Broker-API-Originating-Identity': value } });

it('0: refuses a request with several problems in the order 401, 412, 400, 404, 409, 422', async () => {
  const id = await on.newInstance();
  await on.bind(id, 'taken');
  // 401 before 412; 412 before 400.
  expect((await supertest(on.broker.app).put(instance(id)).send('{')).status).toBe(401);
  expect((await bare('put', instance(id)).set('Content-Type', 'application/json').send('{')).status).toBe(
    412,
  );
  // 400 before 404: update, bind and poll of an instance that does not exist.
  expect((await on.patch('nowhere', { plan_id: 'unknown' })).status).toBe(400);
  expect((await on.bind('nowhere', 'b', { parameters: { colour: 'red' } })).status).toBe(400);
  expect((await on.last('nowhere', '?service_id=unknown')).status).toBe(400);
  // 400 before 410.
  expect((await on.remove('nowhere', `?${accepting}&service_id=unknown&plan_id=${ids.plan}`)).status).toBe(
    400,
  );
  // 400 before 422: update and bind while an operation runs.
  const creating = randomUUID();
  await on.duringCreate(creating, async () => {
    expect((await on.patch(creating, { parameters: { published_ports: 100 } })).status).toBe(400);
    expect((await on.patch(creating, {})).status).toBe(422);
  });
  await on.duringUpdate(creating, async () => {
    for (const change of [{ predecessor_binding_id: 'unknown' }, { parameters: { valid_for: '4000d' } }]) {
      expect([change, (await on.bind(creating, 'b', change)).status]).toEqual([change, 400]);
    }
  });
  // 404 and 410 before 422.
  expect((await on.patch('nowhere', { plan_id: ids.otherPlan }, '')).status).toBe(404);
  expect((await on.remove('nowhere', `?${hints}`)).status).toBe(410);
  // 409 before 422: a create without accepts_incomplete, and a bind while an update runs.
  expect((await on.put(id, { plan_id: ids.otherPlan }, '')).status).toBe(409);
  await on.duringUpdate(id, async () => {
    expect((await on.bind(id, 'taken', { app_guid: 'another' })).status).toBe(409);
  });
});

it.each([undefined, '1.0', '3.0', '2', '2.x', '12.1', ''])(
  '1a: refuses the API version %s with 412 and names the supported one',
  async (version) => {
    const request = bare('get', '/v2/catalog');
    const answer = await (version === undefined ? request : request.set('X-Broker-API-Version', version));
    expect(answer.status).toBe(412);
    expect(described(answer.body)).toContain('2.17');
  },
);

it.each(['2.0', '2.13', '2.17', '2.99'])('1b: accepts the API version %s', async (version) => {
  expect((await bare('get', '/v2/catalog').set('X-Broker-API-Version', version)).status).toBe(200);
});

it('1c: never sends fields newer than 2.14 to an older platform', async () => {
  const id = randomUUID();
  const keys = async (version: string, ...[method, route, body]: Parameters<OsbBroker['ask']>) => {
    const answer = await on.ask(method, route, body, { version });
    expect(answer.status).toBeLessThan(300);
    return Object.keys(answer.body).sort();
  };
  const create = [`put`, `${instance(id)}?${accepting}`, provisionBody] as const;
  expect(await keys('2.14', ...create)).toEqual([]);
  expect(await keys('2.15', ...create)).toEqual(['metadata']);
  expect(await keys('2.14', 'get', instance(id))).toEqual(['parameters', 'plan_id', 'service_id']);
  expect(await keys('2.15', 'get', instance(id))).toEqual(
    ['parameters', 'plan_id', 'service_id', 'maintenance_info', 'metadata'].sort(),
  );
  const bind = ['put', binding(id, 'b'), { service_id: ids.service, plan_id: ids.plan }] as const;
  expect(await keys('2.14', ...bind)).toEqual(['credentials']);
  expect(await keys('2.15', ...bind)).toEqual(['credentials', 'endpoints', 'metadata']);
  expect(await keys('2.14', 'get', binding(id, 'b'))).toEqual(['credentials']);
  expect(await keys('2.15', 'get', binding(id, 'b'))).toEqual(['credentials', 'endpoints', 'metadata']);
  const update = (plan: string) =>
    ['patch', `${instance(id)}?${accepting}`, { service_id: ids.service, plan_id: plan }] as const;
  expect(await keys('2.14', ...update(ids.otherPlan))).toEqual([]);
  expect(await keys('2.15', ...update(ids.plan))).toEqual(['metadata']);
});

it('1d: never sends newer fields of failed operations to an older platform', async () => {
  const id = await on.newInstance();
  await on.failUpdate(id);
  const poll = (version: string) =>
    on.ask('get', `${instance(id)}/last_operation`, undefined, { version }).then(({ body }) => body);
  expect(Object.keys(await poll('2.14')).sort()).toEqual(['description', 'state']);
  expect(await poll('2.16')).toMatchObject({ instance_usable: true, update_repeatable: true });
});

it('2a: accepts a well-formed originating identity, and none', async () => {
  const catalog = (headers: Record<string, string>) => on.ask('get', '/v2/catalog', undefined, { headers });
  expect((await catalog({})).status).toBe(200);
  expect((await catalog(asIdentity(identity({ user_id: '1' })).headers)).status).toBe(200);
});

it.each([
  ['no value', 'cloudfoundry'],
  ['no platform', Buffer.from('{}').toString('base64')],
  ['invalid base64', 'cloudfoundry !!'],
  ['base64 of invalid JSON', `cloudfoundry ${Buffer.from('{').toString('base64')}`],
  ['base64 of an array', identity([])],
])('2b: refuses an originating identity with %s with 400 and names the header', async (_, value) => {
  const answer = await on.ask('get', '/v2/catalog', undefined, asIdentity(value));
  expect(answer.status).toBe(400);
  expect(described(answer.body)).toContain('X-Broker-API-Originating-Identity');
});

it('2c: stores the originating identity in the audit trail', async () => {
  const id = randomUUID();
  const sent = asIdentity(identity({ user_id: 'me' }));
  await on.ask('put', `${instance(id)}?${accepting}`, provisionBody, sent);
  const row = (await on.broker.database('audit').where({ instance_id: id, action: 'provision' }).first()) as {
    identity: unknown;
  };
  expect(row.identity).toEqual({ platform: 'cloudfoundry', value: { user_id: 'me' } });
});

const requestIdentity = (value: string) => ({ headers: { 'X-Broker-API-Request-Identity': value } });

it('3a: echoes the request identity, also in refusals', async () => {
  const answer = await on.ask('get', '/v2/catalog', undefined, requestIdentity('abc-1'));
  expect(answer.headers['x-broker-api-request-identity']).toBe('abc-1');
  const refusal = await supertest(on.broker.app)
    .get('/v2/catalog')
    .set('X-Broker-API-Request-Identity', 'abc-2');
  expect(refusal.status).toBe(401);
  expect(refusal.headers['x-broker-api-request-identity']).toBe('abc-2');
});

it('3b: adds the request identity to every log line of the request, including those of the core', async () => {
  const id = await on.newInstance();
  const before = lines.length;
  const name = randomUUID();
  await on.ask(
    'get',
    `${instance(id)}/last_operation?service_id=${ids.service}&plan_id=${ids.otherPlan}`,
    undefined,
    requestIdentity(name),
  );
  const written = await eventually('both lines are written', () => {
    const since = lines.slice(before);
    return since.some(({ message }) => message === 'Request answered') && since;
  });
  expect(written.map(({ message }) => message)).toContain('The platform sent a stale plan id');
  expect(written.filter(({ details }) => details['request'] !== name)).toEqual([]);
});

// Fails if an identity with spaces or more than 255 characters is replaced, or if log lines contain all of it.
it('3c: echoes any request identity and logs at most 255 characters of it', async () => {
  const before = lines.length;
  const name = `${randomUUID()} of a platform ${'x'.repeat(1000)}`;
  const answer = await on.ask('get', '/v2/catalog', undefined, requestIdentity(name));
  expect(answer.headers['x-broker-api-request-identity']).toBe(name);
  const logged = await eventually('it is logged', () =>
    lines.slice(before).find(({ message }) => message === 'Request answered'),
  );
  expect(logged.details['request']).toBe(name.slice(0, 255));
});

it.each([
  ['wrong password', 'platform', 'wrong'],
  ['unknown user', 'nobody', credentials.password],
  ['empty username and password', '', ''],
])('4a: refuses a %s with 401 JSON', async (_, user, password) => {
  const answer = await supertest(on.broker.app).get('/v2/catalog').auth(user, password);
  expect(answer.status).toBe(401);
  expect(described(answer.body)).not.toBe('');
});

it.each(['/v2/catalog', '/v2/nothing', '/v2/service_instances/%zz', '/v2/service_instances/%00'])(
  '4b: answers %s without a password with 401, whatever else is wrong',
  async (route) => {
    const answer = await supertest(on.broker.app)
      .put(route)
      .set('X-Broker-API-Version', '9')
      .set('X-Broker-API-Originating-Identity', 'wrong')
      .set('Content-Type', 'application/json')
      .send('{');
    expect(answer.status).toBe(401);
  },
);

it.each([
  ['{', /not valid JSON/],
  ['null', /not a JSON object/],
  ['', /service_id: is required/],
])('5a: refuses the body %j with 400 and says what is wrong', async (body, words) => {
  const answer = await putRaw(body);
  expect(answer.status).toBe(400);
  expect(described(answer.body)).toMatch(words);
});

it.each(['text/plain', 'application/x-www-form-urlencoded', 'application/xml'])(
  '5b: refuses the Content-Type %s with 400',
  async (type) => {
    const answer = await putRaw(JSON.stringify(provisionBody), type);
    expect(answer.status).toBe(400);
    expect(described(answer.body)).toContain('Content-Type');
  },
);

it.each(['[]', '"text"', '7', 'true'])(
  '5c: refuses the body %s, which is not an object, with 400',
  async (body) => {
    const answer = await putRaw(body);
    expect(answer.status).toBe(400);
    expect(described(answer.body)).toMatch(/JSON object/);
  },
);

it('5d: ignores unknown fields in the body and the context', async () => {
  const answer = await on.put(randomUUID(), { colour: 'red', context: { colour: 'red' } });
  expect(answer.status).toBe(201);
});

it("5e: refuses unknown parameters by the plan's schema", async () => {
  const answer = await on.put(randomUUID(), { parameters: { colour: 'red' } });
  expect(answer.status).toBe(400);
  expect(described(answer.body)).toContain('colour');
});

it('5f: decodes percent-encoded ids, including slashes and non-ASCII characters', async () => {
  const id = `a/b ${randomUUID()} é`;
  expect((await on.put(encodeURIComponent(id))).status).toBe(201);
  expect(await on.broker.store.records.instance(on.broker.platformId, id)).toBeDefined();
  expect((await on.bind(encodeURIComponent(id), encodeURIComponent('k/1'))).status).toBe(201);
  expect((await on.ask('get', binding(encodeURIComponent(id), 'k%2f1'))).status).toBe(200);
  expect((await on.get('%zz')).status).toBe(400);
});

it.each([
  ['put', '/v2/service_instances/?'],
  ['get', '/v2/service_instances//last_operation?'],
  ['delete', `/v2/service_instances/x/service_bindings/?${hints}&`],
  ['get', '/v2/service_instances//service_bindings/b?'],
] as const)('5g: refuses an empty id with 400: %s %s', async (method, route) => {
  const answer = await on.ask(method, `${route}${accepting}`, method === 'put' ? provisionBody : undefined);
  expect(answer.status).toBe(400);
  expect(described(answer.body)).toMatch(/_id: /);
});

it('5h: accepts ids of 255 characters and refuses longer ones', async () => {
  const longest = `${'é'.repeat(200)}${'😀'.repeat(55)}`;
  expect((await on.put(encodeURIComponent(longest))).status).toBe(201);
  const answer = await on.put('x'.repeat(256));
  expect(answer.status).toBe(400);
  expect(described(answer.body)).toContain('255');
  expect((await on.put(randomUUID(), { organization_guid: 'x'.repeat(256) })).status).toBe(400);
});

it.each<[string, string, object, Record<string, string>?]>([
  ['the path', `${instance('a%00b')}?${accepting}`, provisionBody],
  ['an unknown query parameter', `${instance('a')}?${accepting}&x=%00`, provisionBody],
  ['the name of a query parameter', `${instance('a')}?${accepting}&%00=x`, provisionBody],
  ['an id in the body', `${instance('a')}?${accepting}`, { ...provisionBody, space_guid: 'a\0b' }],
  ['an unknown field', `${instance('a')}?${accepting}`, { ...provisionBody, x: [{ y: '\0' }] }],
  ['a key', `${instance('a')}?${accepting}`, { ...provisionBody, '\0': 1 }],
  [
    'the identity',
    `${instance('a')}?${accepting}`,
    provisionBody,
    asIdentity(identity({ user: '\0' })).headers,
  ],
])('5i: refuses a NUL in %s with 400', async (_, route, body, headers = {}) => {
  const answer = await on.ask('put', route, body, { headers });
  expect(answer.status).toBe(400);
  expect(described(answer.body)).toContain('NUL');
});

it('6a: sends the exact text of AsyncRequired', async () => {
  const answer = await on.put(randomUUID(), {}, '');
  // The specification's example has "Service Plan" in this text; it requires no exact text.
  expect([answer.status, answer.body]).toEqual([422, asyncRequired]);
});

it('6b: sends the exact text of ConcurrencyError', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async () => {
    const answer = await on.bind(id, 'b');
    expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
  });
});

it('6c: sends the exact text of MaintenanceInfoConflict', async () => {
  const answer = await on.put(randomUUID(), { maintenance_info: { version: '0.0.1' } });
  expect([answer.status, answer.body]).toEqual([422, maintenanceInfoConflict]);
});

it('6d: sends a description in every refusal except 410, and only error codes of the specification', async () => {
  const id = await on.newInstance();
  const answers = [
    await on.ask('get', '/v2/nothing'),
    await on.get('nowhere'),
    await on.put(id, { plan_id: ids.otherPlan }),
    await on.put(randomUUID(), { parameters: { egress: 1 } }),
    await on.patch(id, {}),
    await putRaw('{'),
  ];
  expect(answers.map(({ status }) => status)).toEqual([404, 404, 409, 400, 422, 400]);
  for (const { body } of answers) {
    expect(Object.keys(body as object)).toEqual(['description']);
    expect(described(body)).not.toBe('');
  }
});

it('7a: changes nothing if the answer is a 4xx', async () => {
  const id = await on.newInstance();
  await on.bind(id, 'taken');
  const deleted = await on.newInstance();
  await on.remove(deleted);
  const before = await on.tables();
  const answers = [
    await on.put(randomUUID(), {}, ''),
    await on.put(randomUUID(), { organization_guid: randomUUID(), maintenance_info: { version: '0.0.1' } }),
    await on.put(id, { organization_guid: randomUUID() }),
    await on.put(deleted),
    await on.patch(id, { context: { instance_name: 'new' }, plan_id: ids.otherPlan }, ''),
    await on.patch(id, { context: { organization_guid: 'another', instance_name: 'new' } }),
    await on.patch(id, { parameters: { egress: 'none', published_ports: 100 } }),
    await on.bind(id, 'taken', { app_guid: 'another' }),
    await on.bind(id, 'new', { parameters: { valid_for: '4000d' } }),
    await on.bind(deleted, 'new'),
    await on.bind(id, 'new', { predecessor_binding_id: 'unknown' }),
    await on.unbind(id, 'unknown'),
    await on.unbind(id, 'taken', `?service_id=${ids.service}`),
    await on.remove(id, `?${hints}`),
    await on.remove(id, `?${accepting}&service_id=${ids.service}&plan_id=unknown`),
    await on.remove(deleted),
  ];
  expect(answers.map(({ status }) => status)).toEqual([
    422, 422, 409, 409, 422, 422, 400, 409, 400, 404, 400, 410, 400, 422, 400, 410,
  ]);
  expect(await on.tables()).toEqual(before);
});

it('7b: changes nothing if the answer is a 5xx', async () => {
  const full = await makeOsbBroker(inject('postgres'), { slots: 1 });
  try {
    await full.newInstance();
    const before = await full.tables();
    const answer = await full.put(randomUUID(), { organization_guid: 'a new tenant' });
    expect(answer.status).toBe(503);
    expect(await full.tables()).toEqual(before);
  } finally {
    await full.stop();
  }
});

it('7c: answers within 30 s, also if the database is blocked', async () => {
  expect(longestAnswerMs).toBeLessThan(30_000);
  const slow = await makeOsbBroker(inject('postgres'), { answerWithinMs: 300 });
  const blocker = await slow.broker.database.transaction();
  try {
    // The audit trail too, since answers wait for it.
    await blocker.raw('LOCK TABLE instances, audit IN ACCESS EXCLUSIVE MODE');
    for (const answer of [
      await slow.put(randomUUID()),
      await slow.remove(randomUUID()),
      await slow.unbind(randomUUID(), 'b'),
      await slow.last(randomUUID()),
    ]) {
      expect(answer.status).toBe(503);
      expect(described(answer.body)).toMatch(/Try again later/);
    }
    // A request that needs only the audit trail is answered as usual.
    expect((await slow.put(randomUUID(), { plan_id: 'unknown' })).status).toBe(400);
  } finally {
    await blocker.rollback();
    await slow.stop();
  }
});
