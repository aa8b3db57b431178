import { randomUUID, X509Certificate } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { binding, hints, ids } from '../../../support/broker.ts';
import { type OsbBroker, concurrencyError, makeOsbBroker } from '../../../support/osb-broker.ts';
import { eventually } from '../../../support/eventually.ts';

let on: OsbBroker;
/** Shared by the tests that don't change it; each uses other binding ids. */
let id: string;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'));
  id = await on.newInstance();
});
afterAll(() => on.stop());

interface Bound {
  credentials: { key: string; cert: string; docker_host: string; published_ports: string };
  endpoints: { host: string; ports: string[]; protocol: string }[];
  metadata: { expires_at: string; renew_before: string };
}
const bound = async (change: object = {}, of = id) => {
  const answer = await on.bind(of, randomUUID(), change);
  expect(answer.status).toBe(201);
  return answer.body as unknown as Bound;
};
const fetched = (of: string, bindingId: string) => on.ask('get', binding(of, bindingId));
const liveSerials = async () =>
  (await on.broker.database('bindings').where({ state: 'live' }).pluck('serial')) as string[];
const serialOf = ({ credentials }: Bound) =>
  new X509Certificate(credentials.cert).serialNumber.toLowerCase().replace(/^0+/, '');

it.each([
  ['an app', { bind_resource: { app_guid: 'app-1' } }],
  ['an app in the deprecated field', { app_guid: 'app-1' }],
  ['a service key', {}],
])('29a: binds %s', async (_, change) => {
  expect((await bound(change)).credentials.docker_host).toMatch(/^tcp:/);
});

it('29b: binds an app several times to one instance', async () => {
  const app = { bind_resource: { app_guid: 'app-2' } };
  expect(serialOf(await bound(app))).not.toBe(serialOf(await bound(app)));
});

it('30a: answers a new binding with 201', async () => {
  expect((await on.bind(id, '30a')).status).toBe(201);
});

it('30b: answers the same bind again with 200 and the same credentials', async () => {
  const app = { bind_resource: { app_guid: 'app-3' }, parameters: { valid_for: '12h' } };
  const first = await on.bind(id, '30b', app);
  const again = await on.bind(id, '30b', app);
  expect([first.status, again.status]).toEqual([201, 200]);
  expect(again.body).toEqual(first.body);
});

it.each([
  ['app', { bind_resource: { app_guid: 'another' } }],
  ['parameters', { parameters: { valid_for: '13h' } }],
])('30c: refuses a bind with different %s under the same id with 409', async (what, change) => {
  const first = await on.bind(id, `30c-${what}`);
  expect((await on.bind(id, `30c-${what}`, change)).status).toBe(409);
  expect((await fetched(id, `30c-${what}`)).body).toEqual(first.body);
});

it('30d: creates one binding for identical requests at the same time', async () => {
  const answers = await Promise.all(Array.from({ length: 5 }, () => on.bind(id, '30d')));
  expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 200, 201]);
  expect(new Set(answers.map(({ body }) => (body as unknown as Bound).credentials.key)).size).toBe(1);
});

it('31a: gives each binding separate credentials', async () => {
  const [one, two] = [await bound(), await bound()];
  expect(one.credentials.key).not.toBe(two.credentials.key);
  expect(serialOf(one)).not.toBe(serialOf(two));
});

it('31b: revokes one binding without affecting another', async () => {
  const [one, two] = [await on.bind(id, '31b-1'), await on.bind(id, '31b-2')];
  expect((await on.unbind(id, '31b-1')).status).toBe(200);
  const live = await liveSerials();
  expect(live).not.toContain(serialOf(one.body as unknown as Bound));
  expect(live).toContain(serialOf(two.body as unknown as Bound));
  expect((await fetched(id, '31b-2')).body).toEqual(two.body);
});

it("32a: lists the gateway's port and the range of published ports as strings", async () => {
  const { endpoints, credentials } = await bound();
  expect(endpoints.map(({ ports }) => ports)).toEqual([['2376'], [credentials.published_ports]]);
  expect(credentials.published_ports).toMatch(/^\d+-\d+$/);
});

it.each([
  [1, /^\d+$/],
  [2, /^\d+-\d+$/],
])('32b: lists %d published ports as one string', async (count, form) => {
  const few = await on.newInstance({ parameters: { published_ports: count } });
  const { endpoints } = await bound({}, few);
  expect(endpoints[1]?.ports).toHaveLength(1);
  expect(endpoints[1]?.ports[0]).toMatch(form);
});

it('32c: omits the endpoint of published ports if there are none', async () => {
  const { endpoints } = await bound({}, await on.newInstance({ parameters: { published_ports: 0 } }));
  expect(endpoints).toHaveLength(1);
});

it('32d: uses only the protocols tcp, udp and all', async () => {
  for (const { protocol, host } of (await bound()).endpoints) {
    expect(['tcp', 'udp', 'all']).toContain(protocol);
    expect(host).toBe('docker.example.org');
  }
});

it('33a: writes times with one fractional digit and Z', async () => {
  const { metadata } = await bound();
  for (const time of [metadata.expires_at, metadata.renew_before]) {
    expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\dZ$/);
  }
});

it.each([undefined, '1m', '12h'])(
  '33b: sets renew_before before expires_at, the end of the certificate, valid for %s',
  async (validFor) => {
    const { metadata, credentials } = await bound(
      validFor === undefined ? {} : { parameters: { valid_for: validFor } },
    );
    const end = Date.parse(metadata.expires_at);
    expect(Date.parse(metadata.renew_before)).toBeLessThanOrEqual(end);
    expect(Math.abs(Date.parse(new X509Certificate(credentials.cert).validTo) - end)).toBeLessThan(1000);
  },
);

it.each([
  ['service_id', { service_id: undefined }],
  ['service_id', { service_id: '' }],
  ['plan_id', { plan_id: undefined }],
  ['plan_id', { plan_id: '' }],
  ['service_id', { service_id: 'unknown' }],
  ['plan_id', { plan_id: 'unknown' }],
])('34e: refuses a bind without valid catalog ids with 400: %s, %j', async (field, change) => {
  const answer = await on.bind(id, randomUUID(), change);
  expect(answer.status).toBe(400);
  expect(answer.body['description']).toContain(field);
});

it('35a: refuses a bind while the instance is being created with 422 ConcurrencyError', async () => {
  const early = randomUUID();
  await on.duringCreate(early, async () => {
    const answer = await on.bind(early, 'b');
    expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
  });
  expect((await on.bind(early, 'b')).status).toBe(201);
});

it('35b: refuses a bind while an update runs with 422 ConcurrencyError', async () => {
  const one = await on.newInstance();
  await on.duringUpdate(one, async () => {
    const answer = await on.bind(one, 'b');
    expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
  });
  expect((await on.bind(one, 'b')).status).toBe(201);
});

it('35c: refuses a bind while the instance is being deleted with 422 ConcurrencyError', async () => {
  const one = await on.newInstance();
  await on.duringDelete(one, async () => {
    const answer = await on.bind(one, 'b');
    expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
  });
});

it('35d: answers a bind of an instance that does not exist, or no longer exists, with 404', async () => {
  expect((await on.bind(randomUUID(), 'b')).status).toBe(404);
  const one = await on.newInstance();
  await on.remove(one);
  expect((await on.bind(one, 'b')).status).toBe(404);
});

it('35e: unbinds while an update or a delete runs', async () => {
  const one = await on.newInstance();
  await on.bind(one, 'a');
  await on.bind(one, 'b');
  await on.duringUpdate(one, async () => {
    expect((await on.unbind(one, 'a')).status).toBe(200);
  });
  await on.duringDelete(one, async () => {
    // The delete has already revoked it.
    expect((await on.unbind(one, 'b')).status).toBe(410);
  });
});

it('36a: fetches a binding with its credentials', async () => {
  const made = await on.bind(id, '36a');
  expect((made.body as unknown as Bound).credentials.key).toContain('PRIVATE KEY');
  expect(await fetched(id, '36a')).toMatchObject({ status: 200, body: made.body });
});

it('36b: answers 404 for an unbound binding, whose key is deleted, and for an unknown one', async () => {
  await on.bind(id, '36b');
  const unbound = await on.unbind(id, '36b');
  expect([unbound.status, unbound.text]).toEqual([200, '{}']);
  expect((await fetched(id, '36b')).status).toBe(404);
  expect((await fetched(id, 'never')).status).toBe(404);
  const row: unknown = await on.broker.database('bindings').where({ osb_id: '36b' }).first();
  expect(row).toMatchObject({ state: 'revoked', sealed_credentials: null });
});

it('37: lets many binds of one instance succeed at the same time', async () => {
  const answers = await Promise.all(Array.from({ length: 20 }, (_, index) => on.bind(id, `37-${index}`)));
  expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(201));
  expect(new Set(answers.map(({ body }) => serialOf(body as unknown as Bound))).size).toBe(20);
});

it('bind: stores no private key in plain text in the database', async () => {
  const inside = (await bound()).credentials.key.split('\n')[1] ?? '';
  expect(inside.length).toBeGreaterThan(40);
  for (const table of ['bindings', 'certificate_authorities', 'operations', 'instances']) {
    const rows = JSON.stringify(await on.broker.database(table));
    expect(rows).not.toContain(inside);
    expect(rows).not.toContain(Buffer.from(inside).toString('hex'));
  }
});

it('unbind: waits for a gateway with a lease before it is answered', async () => {
  const { database } = on.broker;
  await on.bind(id, 'awaited');
  const gateway = randomUUID();
  await database('gateways').insert({
    id: gateway,
    lease_until: database.raw(`clock_timestamp() + interval '1 hour'`),
  });
  let answered = false;
  const unbinding = on.unbind(id, 'awaited').then((answer) => {
    answered = true;
    return answer;
  });
  const row = await eventually('it is revoked', async () => {
    const found: { id: string } | undefined = await database('bindings')
      .where({ osb_id: 'awaited', state: 'revoked' })
      .whereNull('settled_at')
      .first('id');
    return found;
  });
  // Other requests are answered while it waits.
  for (let count = 0; count < 10; count += 1) expect((await on.last(id)).status).toBe(200);
  expect(answered).toBe(false);
  await database('revocation_acknowledgements').insert({ binding_id: row.id, gateway_id: gateway });
  await database.raw(`SELECT pg_notify('berth_acknowledgements', ?)`, [row.id]);
  expect((await unbinding).status).toBe(200);
  await database('gateways').where({ id: gateway }).delete();
});

it('38f: refuses an unbind without valid catalog ids and accepts another plan of the offering', async () => {
  await on.bind(id, '38f');
  for (const query of [
    '',
    `?service_id=${ids.service}`,
    `?plan_id=${ids.plan}`,
    '?service_id=&plan_id=',
    `?service_id=unknown&plan_id=${ids.plan}`,
  ]) {
    expect([query, (await on.unbind(id, '38f', query)).status]).toEqual([query, 400]);
  }
  expect((await on.unbind(id, '38f', `?service_id=${ids.service}&plan_id=${ids.otherPlan}`)).status).toBe(
    200,
  );
  const gone = await on.unbind(id, '38f', `?${hints}`);
  expect([gone.status, gone.body]).toEqual([410, {}]);
});

it('36c: the variables of env can be exported as they are', async () => {
  const { credentials } = (await bound()) as unknown as {
    credentials: { docker_host: string; env: object; hint: string };
  };
  expect(credentials.env).toEqual({ DOCKER_HOST: credentials.docker_host, DOCKER_TLS_VERIFY: '1' });
  expect(credentials.hint).toContain('DOCKER_CERT_PATH');
});
