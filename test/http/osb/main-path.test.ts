import { randomUUID } from 'node:crypto';
import supertest from 'supertest';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import {
  bindBody,
  binding,
  credentials,
  hints,
  ids,
  instance,
  makeTestBroker,
  provisionBody,
  type TestBroker,
} from '../../support/broker.ts';
import { eventually } from '../../support/eventually.ts';

let broker: TestBroker;
const texts = {
  async: 'This service plan requires client support for asynchronous service operations.',
  concurrency: 'The Service Broker does not support concurrent requests that mutate the same resource.',
};
/** While it is set, no host can be started: creates stay in progress. */
let held: Promise<void> | undefined;
let release: () => void = () => undefined;
const hold = () => {
  held = new Promise((resolve) => (release = resolve));
};
const letGo = () => {
  held = undefined;
  release();
};

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'), {
    faults: { before: (act) => (act === 'start' ? held : undefined) },
  });
  broker.startWorker();
});
afterAll(async () => {
  letGo();
  await broker.stop();
});

const create = async (id: string) => {
  const answer = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
  expect(answer.status).toBe(201);
};
const newInstance = async () => {
  const id = randomUUID();
  await create(id);
  return id;
};
const lastState = async (id: string, query = '') =>
  (await broker.ask('get', `${instance(id)}/last_operation${query}`)).body as Record<string, unknown>;

describe('headers and errors', () => {
  it('1a refuses a missing or foreign API version with 412, and accepts any 2.x', async () => {
    const ask = () =>
      supertest(broker.app).get('/v2/catalog').auth(credentials.username, credentials.password);
    for (const version of [undefined, '1.0', '3.0', '2', 'x']) {
      const request = ask();
      const answer = await (version === undefined ? request : request.set('X-Broker-API-Version', version));
      expect(answer.status, version).toBe(412);
      expect((answer.body as { description: string }).description).toContain('2.17');
    }
    for (const version of ['2.0', '2.13', '2.17', '2.99']) {
      expect((await ask().set('X-Broker-API-Version', version)).status).toBe(200);
    }
  });

  it('1b leaves fields newer than 2.14 away for older platforms', async () => {
    const id = await newInstance();
    const old = await broker
      .ask('put', binding(id, 'old'))
      .set('X-Broker-API-Version', '2.14')
      .send(bindBody);
    expect(Object.keys(old.body as object)).toEqual(['credentials']);
    const recent = await broker.ask('get', binding(id, 'old'));
    expect(Object.keys(recent.body as object).sort()).toEqual(['credentials', 'endpoints', 'metadata']);
  });

  it('2 refuses a malformed originating identity, and accepts one that is right or absent', async () => {
    const ask = (value: string) =>
      broker.ask('get', '/v2/catalog').set('X-Broker-API-Originating-Identity', value);
    const right = `cloudfoundry ${Buffer.from('{"user_id":"1"}').toString('base64')}`;
    expect((await ask(right)).status).toBe(200);
    for (const wrong of [
      'cloudfoundry',
      'cloudfoundry !!',
      `cloudfoundry ${Buffer.from('[]').toString('base64')}`,
    ]) {
      expect((await ask(wrong)).status, wrong).toBe(400);
    }
  });

  it('3 echoes the request identity', async () => {
    const answer = await broker.ask('get', '/v2/catalog').set('X-Broker-API-Request-Identity', 'abc-1');
    expect(answer.headers['x-broker-api-request-identity']).toBe('abc-1');
  });

  it('4 looks at the password before anything else', async () => {
    for (const [user, password] of [
      ['platform', 'wrong'],
      ['wrong', credentials.password],
      ['', ''],
    ] as const) {
      const answer = await supertest(broker.app)
        .put('/v2/service_instances/x')
        .auth(user, password)
        .send('{');
      expect(answer.status).toBe(401);
      expect((answer.body as { description: string }).description).not.toBe('');
    }
    expect((await supertest(broker.app).get('/v2/catalog')).status).toBe(401);
  });

  it('5 refuses bodies that are not JSON objects, and ids that can not be', async () => {
    const put = (body: string, type = 'application/json') =>
      broker
        .ask('put', `${instance('five')}?accepts_incomplete=true`)
        .set('Content-Type', type)
        .send(body);
    for (const body of ['{', '[]', '"text"', 'null', '']) expect((await put(body)).status, body).toBe(400);
    expect((await put(JSON.stringify(provisionBody), 'text/plain')).status).toBe(400);
    expect((await put(JSON.stringify({ ...provisionBody, space_guid: 'a\0b' }))).status).toBe(400);
    expect((await put(`{"filler":"${'x'.repeat(300_000)}"}`)).status).toBe(413);
    for (const id of ['%00', 'x'.repeat(256), '%zz']) {
      const answer = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
      expect(answer.status, id).toBe(400);
      expect((answer.body as { description: string }).description).not.toBe('');
    }
    // Nothing was recorded.
    expect((await broker.ask('get', `${instance('five')}/last_operation`)).status).toBe(404);
  });

  it('6 has a description in every refusal, and an error code only of the specification', async () => {
    const answer = await broker.ask('put', instance('six')).send(provisionBody);
    expect(answer.status).toBe(422);
    expect(answer.body).toEqual({ error: 'AsyncRequired', description: texts.async });
    const unknown = await broker.ask('get', '/v2/nothing');
    expect(unknown.status).toBe(404);
    expect(Object.keys(unknown.body as object)).toEqual(['description']);
  });
});

describe('catalog', () => {
  it('8 declares what works today', async () => {
    const shown = await broker.ask('get', '/v2/catalog');
    const [service] = (shown.body as { services: Record<string, unknown>[] }).services;
    expect(service).toMatchObject({ id: ids.service, plan_updateable: true, bindable: true });
    expect(service?.['metadata']).toMatchObject({ shareable: false });
  });

  it('9 shows draft-04 schemas', async () => {
    const shown = await broker.ask('get', '/v2/catalog');
    expect(JSON.stringify(shown.body)).toContain('"$schema":"http://json-schema.org/draft-04/schema#"');
  });

  it('11 answers 304 to who has it already', async () => {
    const first = await broker.ask('get', '/v2/catalog');
    const tag = first.headers['etag'] ?? '';
    expect(tag).not.toBe('');
    expect((await broker.ask('get', '/v2/catalog').set('If-None-Match', tag)).status).toBe(304);
    expect((await broker.ask('get', '/v2/catalog').set('If-None-Match', '"other"')).status).toBe(200);
  });
});

describe('provision, fetch, poll', () => {
  it('13 answers 201 within the request, and 202 at once where BERTH_SYNC_WAIT_MS is 0', async () => {
    await newInstance();
    const id = randomUUID();
    const answer = await broker
      .askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`)
      .send(provisionBody);
    expect(answer.status).toBe(202);
    expect((answer.body as { operation: string }).operation).toMatch(/^[0-9a-f-]{36}$/);
    await eventually('it is created', async () => (await lastState(id))['state'] === 'succeeded');
  });

  it('15 tells how the last operation stands', async () => {
    expect((await broker.ask('get', `${instance('never-seen')}/last_operation`)).status).toBe(404);
    const id = await newInstance();
    expect(await lastState(id, '?operation=not-ours')).toMatchObject({ state: 'succeeded' });
    expect((await broker.ask('get', `${instance(id)}/last_operation?service_id=unknown`)).status).toBe(400);
    const stale = `?service_id=${ids.service}&plan_id=${ids.otherPlan}`;
    expect(await lastState(id, stale)).toMatchObject({ state: 'succeeded' });
    await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`);
    expect(await lastState(id)).toMatchObject({ state: 'succeeded' });
  });

  it('19 requires its fields, ids of the catalog, and parameters of the schema', async () => {
    for (const [change, words] of [
      [{ service_id: undefined }, 'service_id'],
      [{ organization_guid: '' }, 'organization_guid'],
      [{ space_guid: 7 }, 'space_guid'],
      [{ service_id: 'other' }, 'service_id'],
      [{ plan_id: 'other' }, 'plan_id'],
      [{ parameters: { colour: 'red' } }, 'colour'],
      [{ parameters: { egress: 'everywhere' } }, '/egress'],
      [{ parameters: [] }, 'parameters'],
    ] as const) {
      const answer = await broker
        .ask('put', `${instance('nineteen')}?accepts_incomplete=true`)
        .send({ ...provisionBody, ...change });
      expect(answer.status, words).toBe(400);
      expect((answer.body as { description: string }).description).toContain(words);
    }
    expect((await broker.ask('get', `${instance('nineteen')}/last_operation`)).status).toBe(404);
  });

  it('20 answers a repeated request as the first, and a different one with 409', async () => {
    const id = randomUUID();
    const put = (change: object = {}) =>
      broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send({ ...provisionBody, ...change });
    hold();
    const first = await broker
      .askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`)
      .send(provisionBody);
    const again = await broker
      .askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`)
      .send(provisionBody);
    expect([first.status, again.status]).toEqual([202, 202]);
    expect(again.body).toEqual(first.body);
    expect((await put({ plan_id: ids.otherPlan })).status).toBe(409);
    expect((await put({ organization_guid: 'org-2' })).status).toBe(409);
    letGo();
    await eventually('it is created', async () => (await lastState(id))['state'] === 'succeeded');
    expect((await put()).status).toBe(200);
    expect((await put({ context: { instance_name: 'renamed' } })).status).toBe(200);
    expect((await put({ parameters: { egress: 'none' } })).status).toBe(409);
  });

  it('20b takes two equal requests at once for one', async () => {
    const id = randomUUID();
    const answers = await Promise.all(
      Array.from({ length: 5 }, () =>
        broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody),
      ),
    );
    for (const { status } of answers) expect([200, 201]).toContain(status);
    expect(
      await broker.database('hosts').join('instances', 'instances.id', 'instance_id').where({ osb_id: id }),
    ).toHaveLength(1);
  });

  it('23 shows an instance only while it is there', async () => {
    const id = randomUUID();
    hold();
    await broker.askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
    expect((await broker.ask('get', instance(id))).status).toBe(404);
    letGo();
    await eventually('it is created', async () => (await lastState(id))['state'] === 'succeeded');
    const fetched = await broker.ask('get', instance(id));
    expect(fetched.body).toMatchObject({ service_id: ids.service, plan_id: ids.plan, parameters: {} });
    await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`);
    expect((await broker.ask('get', instance(id))).status).toBe(404);
  });
});

describe('bind', () => {
  it('29 to 33 gives credentials of its own to each binding, and the same ones to a retry', async () => {
    const id = await newInstance();
    const first = await broker.ask('put', binding(id, 'one')).send(bindBody);
    expect(first.status).toBe(201);
    const again = await broker.ask('put', binding(id, 'one')).send(bindBody);
    expect(again.status).toBe(200);
    expect(again.body).toEqual(first.body);
    const different = await broker
      .ask('put', binding(id, 'one'))
      .send({ ...bindBody, bind_resource: { app_guid: 'app' } });
    expect(different.status).toBe(409);
    const second = await broker.ask('put', binding(id, 'two')).send(bindBody);
    const {
      credentials: one,
      endpoints,
      metadata,
    } = first.body as {
      credentials: Record<string, unknown>;
      endpoints: { ports: string[]; protocol: string }[];
      metadata: { expires_at: string; renew_before: string };
    };
    expect((second.body as { credentials: { key: string } }).credentials.key).not.toBe(one['key']);
    expect(one['docker_host']).toBe('tcp://docker.example.org:2376');
    expect(endpoints[0]?.ports).toEqual(['2376']);
    expect(endpoints[1]?.ports[0]).toMatch(/^\d+-\d+$/);
    expect(metadata.expires_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\dZ$/);
    expect(Date.parse(metadata.renew_before)).toBeLessThanOrEqual(Date.parse(metadata.expires_at));
    expect((await broker.ask('get', binding(id, 'one'))).body).toEqual(first.body);
  });

  it('35 refuses while an operation runs, and what does not exist', async () => {
    expect((await broker.ask('put', binding('nowhere', 'one')).send(bindBody)).status).toBe(404);
    const id = randomUUID();
    hold();
    await broker.askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
    const early = await broker.ask('put', binding(id, 'one')).send(bindBody);
    expect(early.body).toEqual({ error: 'ConcurrencyError', description: texts.concurrency });
    expect(early.status).toBe(422);
    letGo();
    await eventually('it is created', async () => (await lastState(id))['state'] === 'succeeded');
  });

  it('36 forgets the credentials on unbind', async () => {
    const id = await newInstance();
    await broker.ask('put', binding(id, 'one')).send(bindBody);
    const unbound = await broker.ask('delete', `${binding(id, 'one')}?${hints}`);
    expect([unbound.status, unbound.body]).toEqual([200, {}]);
    expect((await broker.ask('get', binding(id, 'one'))).status).toBe(404);
    expect((await broker.ask('delete', `${binding(id, 'one')}?${hints}`)).status).toBe(410);
    expect((await broker.ask('delete', `${binding(id, 'never')}?${hints}`)).status).toBe(410);
    const rows = await broker
      .database<{ sealed_credentials: Buffer | null; state: string }>('bindings')
      .where({ state: 'revoked' });
    expect(rows.length).toBeGreaterThan(0);
    for (const row of rows) expect(row.sealed_credentials).toBeNull();
  });

  it('37 lets many binds on one instance succeed at once', async () => {
    const id = await newInstance();
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => broker.ask('put', binding(id, `b${index}`)).send(bindBody)),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(201));
  });

  it('keeps no private key in the clear in the database', async () => {
    const id = await newInstance();
    const bound = await broker.ask('put', binding(id, 'secret')).send(bindBody);
    const { key } = (bound.body as { credentials: { key: string } }).credentials;
    const inside = key.split('\n')[1] ?? '';
    expect(inside.length).toBeGreaterThan(40);
    for (const table of ['bindings', 'authorities', 'operations', 'instances']) {
      const rows: unknown[] = await broker.database(table);
      expect(JSON.stringify(rows)).not.toContain(inside);
      expect(Buffer.from(JSON.stringify(rows)).includes(Buffer.from(inside).toString('hex'))).toBe(false);
    }
  });
});

describe('delete', () => {
  it('38 requires both ids, and accepts another plan of the same offering', async () => {
    const id = await newInstance();
    const remove = (query: string) =>
      broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${query}`);
    expect((await remove(`plan_id=${ids.plan}`)).status).toBe(400);
    expect((await remove(`service_id=${ids.service}&plan_id=`)).status).toBe(400);
    expect((await remove(`service_id=${ids.service}&plan_id=unknown`)).status).toBe(400);
    const done = await remove(`service_id=${ids.service}&plan_id=${ids.otherPlan}`);
    expect([done.status, done.body]).toEqual([200, {}]);
    const gone = await remove(hints);
    expect([gone.status, gone.body]).toEqual([410, {}]);
  });

  it('39 halts a create that still runs', async () => {
    const id = randomUUID();
    hold();
    const begun = await broker
      .askAsynchronous('put', `${instance(id)}?accepts_incomplete=true`)
      .send(provisionBody);
    const { operation } = begun.body as { operation: string };
    await eventually('a worker is at it', async () =>
      String((await lastState(id))['description']).startsWith('Starting'),
    );
    const deleted = await broker.askAsynchronous(
      'delete',
      `${instance(id)}?accepts_incomplete=true&${hints}`,
    );
    expect(deleted.status).toBe(202);
    const again = await broker.askAsynchronous('delete', `${instance(id)}?accepts_incomplete=true&${hints}`);
    expect([again.status, again.body]).toEqual([202, deleted.body]);
    expect(
      (await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody)).status,
    ).toBe(422);
    letGo();
    await eventually('it is deleted', async () => (await lastState(id))['state'] === 'succeeded');
    expect(await lastState(id, `?operation=${operation}`)).toMatchObject({ state: 'failed' });
    expect(
      await broker
        .database('hosts')
        .join('instances', 'instances.id', 'instance_id')
        .where({ osb_id: id })
        .whereNot('hosts.state', 'destroyed'),
    ).toEqual([]);
  });

  it('40 remembers an id that was deleted before it was seen', async () => {
    const id = randomUUID();
    expect((await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`)).status).toBe(410);
    const late = await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody);
    expect(late.status).toBe(409);
  });

  it('41 revokes the bindings of an instance with it', async () => {
    const id = await newInstance();
    await broker.ask('put', binding(id, 'one')).send(bindBody);
    expect((await broker.ask('delete', `${instance(id)}?accepts_incomplete=true&${hints}`)).status).toBe(200);
    expect((await broker.ask('delete', `${binding(id, 'one')}?${hints}`)).status).toBe(410);
    expect(
      (await broker.ask('put', `${instance(id)}?accepts_incomplete=true`).send(provisionBody)).status,
    ).toBe(409);
  });
});

it('waits for a gateway that holds a lease before it answers an unbind', async () => {
  const id = await newInstance();
  await broker.ask('put', binding(id, 'one')).send(bindBody);
  const gateway = randomUUID();
  await broker.database('gateways').insert({
    id: gateway,
    lease_until: broker.database.raw(`clock_timestamp() + interval '1 hour'`),
  });
  let answered = false;
  const unbinding = broker.ask('delete', `${binding(id, 'one')}?${hints}`).then((answer) => {
    answered = true;
    return answer;
  });
  const row = await eventually('it is revoked', async () => {
    const found: { id: string } | undefined = await broker
      .database('bindings')
      .where({ osb_id: 'one', state: 'revoked' })
      .whereNull('settled_at')
      .first('id');
    return found;
  });
  // Whatever else is asked is answered meanwhile.
  for (let count = 0; count < 10; count += 1) await lastState(id);
  expect(answered).toBe(false);
  await broker.database('revocation_acknowledgements').insert({ binding_id: row.id, gateway_id: gateway });
  await broker.database.raw(`SELECT pg_notify('berth_acknowledgements', ?)`, [row.id]);
  expect((await unbinding).status).toBe(200);
  await broker.database('gateways').where({ id: gateway }).delete();
});
