/* eslint-disable max-lines -- all properties share the generators */
import fc from 'fast-check';
import { Agent, request as httpRequest } from 'node:http';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { allPlans } from '../../../src/core/catalog/lookup.ts';
import { bindSchema, provisionSchema } from '../../../src/core/catalog/parameter-schemas.ts';
import { loadCatalog } from '../../../src/core/catalog/load.ts';
import { type HttpListener, listen } from '../../../src/http/listen.ts';
import {
  bindBody,
  binding,
  catalogFile,
  credentials,
  ids,
  instance,
  makeTestBroker,
  operator,
  provisionBody,
  type TestBroker,
} from '../../support/broker.ts';

/**
 * Property tests with generated requests: no answer is a 5xx, an error has a JSON description, and a refused request
 * changes no table. No worker runs, so nothing else changes the tables. fast-check prints the seed and the
 * counterexample of a failure; `BERTH_TEST_RUNS` sets the number of runs.
 */
const runs = Number(process.env['BERTH_TEST_RUNS'] ?? 100);

let broker: TestBroker;
let listener: HttpListener;
let mgmt: HttpListener;
/** The host of the instance `ready`. */
let readyHost = '';
const agent = new Agent({ keepAlive: true });

beforeAll(async () => {
  broker = await makeTestBroker(inject('postgres'), { syncWaitMs: 0, slots: 1_500 });
  listener = await listen(broker.app, { host: '127.0.0.1', port: 0, setting: '' });
  mgmt = await listen(broker.mgmt, { host: '127.0.0.1', port: 0, setting: '' });
  contents = await readTables();
  await ready('ready');
  const [host] = await broker.database('hosts').select<{ id: string }[]>('id');
  readyHost = host?.id ?? '';
  await broker.ask('put', binding('ready', 'bound')).send(bindBody).expect(201);
  await broker
    .ask('put', `${instance('creating')}?accepts_incomplete=true`)
    .send(provisionBody)
    .expect(202);
});
afterAll(async () => {
  agent.destroy();
  await Promise.all([listener.stop(), mgmt.stop()]);
  await broker.stop();
});

/** Creates an instance and sets it to the state in which a worker leaves it. */
async function ready(id: string): Promise<void> {
  await broker
    .ask('put', `${instance(id)}?accepts_incomplete=true`)
    .send(provisionBody)
    .expect(202);
  await broker.database('operations').update({ state: 'succeeded', finished_at: new Date() });
  await broker.database('instances').where({ osb_id: id }).update({ state: 'ready' });
  await broker.database('hosts').update({ state: 'running' });
}

interface Sent {
  readonly method: string;
  /** Path and query, exactly as in the request line. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: string | undefined;
}

function send(sent: Sent, port: number): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        host: '127.0.0.1',
        port,
        agent,
        method: sent.method,
        path: sent.target,
        headers: {
          ...sent.headers,
          // Without it, Node's client sends the body of a GET as if another request followed.
          ...(sent.body !== undefined && { 'content-length': String(Buffer.byteLength(sent.body)) }),
        },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response
          .on('data', (chunk: Buffer) => chunks.push(chunk))
          .on('end', () => {
            resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') });
          })
          .on('error', reject);
      },
    );
    request
      .on('error', (error: NodeJS.ErrnoException) => {
        // An unreadable request is answered with a body, even if its method was HEAD.
        if (sent.method === 'HEAD' && error.code === 'HPE_CLOSED_CONNECTION')
          resolve({ status: 400, text: '' });
        else reject(error);
      })
      .end(sent.body);
  });
}

/** A digest of every row of every table. */
let contents: () => Promise<string>;
async function readTables(): Promise<typeof contents> {
  const { rows } = await broker.database.raw<{ rows: { name: string }[] }>(`
    SELECT table_name AS name FROM information_schema.tables
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
      -- An early delete is recorded although it is answered 410 (docs/osb.md 40), and the audit trail records refusals.
      AND table_name NOT IN ('early_deletes', 'audit')`);
  const one = ({ name }: { name: string }) =>
    `SELECT '${name}' AS name, md5(string_agg(t::text, '|' ORDER BY t::text)) AS digest FROM ${name} AS t`;
  const all = rows.map(one).join(' UNION ALL ');
  return async () => JSON.stringify((await broker.database.raw<{ rows: object[] }>(all)).rows);
}

async function holds(sent: Sent, port: number): Promise<void> {
  const before = await contents();
  const { status, text } = await send(sent, port);
  const answer = `${status} ${text.slice(0, 300)}`;
  expect(status, answer).toBeGreaterThanOrEqual(200);
  expect(status, answer).toBeLessThan(500);
  if (status < 400) return;
  expect(await contents(), `${answer}: a refused request changed something`).toBe(before);
  if (sent.method === 'HEAD') return;
  const body = JSON.parse(text) as { error?: unknown; description?: unknown };
  // 410 has no description (OSB 2.17, "Deprovisioning").
  if (status === 410) {
    expect(body).toEqual({});
    return;
  }
  expect(typeof body.description, answer).toBe('string');
  expect(body.description, answer).not.toBe('');
  if ('error' in body)
    expect(body.error).toMatch(/^(AsyncRequired|ConcurrencyError|MaintenanceInfoConflict)$/);
}

const check = (property: fc.IAsyncProperty<[Sent]>) =>
  // While fast-check shrinks a failure, reruns meet other rows: read the first counterexample.
  fc.assert(property, { numRuns: runs, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: true });

/** Text that often breaks code: empty, huge, NUL, unpaired surrogates, any Unicode, syntax of other languages. */
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ unit: 'grapheme', maxLength: 40 }),
  fc.constantFrom(
    '',
    '\0',
    'a\0b',
    '\ud800',
    'x\udfff',
    '\u202e',
    '__proto__',
    'constructor',
    '../..',
    '%',
    '%00',
    "';--",
  ),
  fc.constantFrom(1, 255, 256, 5_000, 60_000).map((length) => 'é'.repeat(length)),
  fc.constantFrom(...Object.values(ids), 'ready', 'creating', 'bound', 'null', 'true', '2h', 'internet'),
);
const json = fc.oneof(
  { depthSize: 'small', withCrossShrink: true },
  fc.jsonValue({ maxDepth: 4 }),
  text,
  fc.constantFrom(null, true, 0, -1, 1e308, 2 ** 53, [], {}),
  fc.constant(JSON.parse(`${'['.repeat(70)}${']'.repeat(70)}`) as fc.JsonValue),
);
/** Mostly the valid one of two, so that most requests get past the first check. */
const mostly = <T, U>(right: fc.Arbitrary<T>, wrong: fc.Arbitrary<U>) =>
  fc.oneof({ weight: 12, arbitrary: right }, { weight: 1, arbitrary: wrong });
const one = fc.constantFrom;
/** A field that is valid, invalid or absent. */
const field = (...right: readonly unknown[]) => mostly(one(...right), fc.oneof(json, fc.constant(undefined)));

/** The part of our schemas that the generator below needs. */
interface Rule {
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Rule[];
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly items?: Rule;
  readonly properties?: Readonly<Record<string, Rule>>;
}
/** Values that a rule allows. @throws Error for a kind of rule that it does not know. */
function valuesFor(rule: Rule): fc.Arbitrary<unknown> {
  if (rule.enum !== undefined) return one(...rule.enum);
  if (rule.pattern !== undefined) return fc.stringMatching(new RegExp(rule.pattern));
  if (rule.anyOf !== undefined) return fc.oneof(...rule.anyOf.map(valuesFor));
  switch (rule.type) {
    case 'integer':
      return fc.integer({ min: rule.minimum ?? 0, max: rule.maximum ?? 10 });
    case 'string':
      return text;
    case 'array':
      return fc.array(valuesFor(rule.items ?? {}), { minLength: 1, maxLength: 3 });
    case 'object':
      return fc.record(
        Object.fromEntries(
          Object.entries(rule.properties ?? {}).map(([name, one]) => [name, valuesFor(one)]),
        ),
      );
    default:
      throw new Error(`no generator for the rule ${JSON.stringify(rule)}`);
  }
}

const context = fc.oneof(
  json,
  fc.dictionary(
    one('platform', 'organization_guid', 'space_guid', 'clusterid', 'namespace', 'instance_name', 'x'),
    fc.oneof(json, one('cloudfoundry', 'kubernetes')),
  ),
);
/** All parameters with their rules, as the catalog shows them. */
const [plan] = allPlans(loadCatalog(catalogFile, 'test'));
if (plan === undefined) throw new Error('the catalog has no plan');
const rules = { ...propertiesOf(provisionSchema(plan)), ...propertiesOf(bindSchema(plan)) };
function propertiesOf(schema: object): Record<string, Rule> {
  return (schema as { properties: Record<string, Rule> }).properties;
}
const parameters = fc.oneof(
  fc.record(
    Object.fromEntries(Object.entries(rules).map(([name, rule]) => [name, mostly(valuesFor(rule), json)])),
    { requiredKeys: [] },
  ),
  fc.dictionary(one(...Object.keys(rules), 'x'), json),
  json,
);
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.oneof(fc.constant(undefined), arbitrary);
const fields = {
  service_id: field(ids.service),
  plan_id: field(ids.plan, ids.otherPlan),
  organization_guid: field('org-1', 'org-2'),
  space_guid: field('space-1'),
  context: fc.oneof(fc.record({ instance_name: text }), optional(context)),
  parameters: optional(parameters),
  maintenance_info: optional(fc.oneof(json, fc.record({ version: json }))),
  previous_values: optional(json),
  app_guid: optional(json),
  bind_resource: optional(fc.oneof(json, fc.record({ app_guid: json }))),
  predecessor_binding_id: optional(fc.oneof(json, one('bound', 'none'))),
  unknown: optional(json),
};
const body = mostly(
  fc.record(fields).map((value) => JSON.stringify(value)),
  fc.oneof(
    json.map((value) => JSON.stringify(value)),
    fc.string({ unit: 'binary', maxLength: 60 }),
    one(
      '',
      '{',
      '{"a":1',
      '{"a":"\\ud800"}',
      '{"\\u0000":1}',
      '[]',
      '"text"',
      `{"a":"${'x'.repeat(300_000)}"}`,
      `{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`,
    ),
  ),
);

/** Percent-encoded, as a client would, or any bytes that HTTP allows in a path, with stray percent signs. */
const encoded = fc.oneof(
  text.map((value) => encodeURIComponent(value.replace(/\p{Surrogate}/gu, '?'))),
  fc.stringMatching(/^[!$-.0-;=@-Z_a-z~]{0,20}$/),
  one('%', '%2', '%zz', '%ff', '%c0%80', '%00', '%2f', '..', '.', '%2e%2e'),
);
const id = mostly(fc.oneof(one('ready', 'creating', 'never-seen'), fc.uuid()), encoded);
const queryName = one(
  'service_id',
  'plan_id',
  'accepts_incomplete',
  'operation',
  'limit',
  'since',
  'instance',
  'x',
  'service_id[]',
  '__proto__',
);
const query = fc
  .tuple(
    mostly(
      one(`service_id=${ids.service}&plan_id=${ids.plan}&accepts_incomplete=true`, ''),
      fc.constant('accepts_incomplete=TRUE'),
    ),
    fc.array(fc.tuple(queryName, encoded), { maxLength: 3 }),
  )
  .map(([first, more]) =>
    [first, ...more.map(([name, value]) => `${name}=${value}`)].filter((part) => part !== '').join('&'),
  );

/** Header values that HTTP allows; the client refuses the others. */
const headerText = fc.stringMatching(/^[\t -~\x80-\xff]{0,60}$/);
const basic = (pair: string) => `Basic ${Buffer.from(pair).toString('base64')}`;
const right = ({ username, password }: { username: string; password: string }) =>
  basic(`${username}:${password}`);
const identity = (value: string) => `cloudfoundry ${Buffer.from(value).toString('base64')}`;
const headersFor = (authorization: string) =>
  fc
    .record({
      authorization: mostly(
        fc.constant(authorization),
        fc.oneof(
          headerText,
          text.map((value) => basic(value)),
          fc.constant(undefined),
        ),
      ),
      'x-broker-api-version': mostly(one('2.17', '2.13'), fc.oneof(headerText, fc.constant(undefined))),
      'content-type': mostly(
        one('application/json', 'application/json; charset=utf-8'),
        fc.oneof(
          headerText,
          one('text/plain', 'application/json; charset=x', 'application/json; charset=utf-7', undefined),
        ),
      ),
      'content-encoding': mostly(fc.constant(undefined), fc.oneof(headerText, one('gzip', 'br', 'x'))),
      'x-broker-api-originating-identity': mostly(
        fc.constant(undefined),
        fc.oneof(
          headerText,
          json.map((value) => identity(JSON.stringify(value))),
        ),
      ),
      'x-broker-api-request-identity': optional(headerText),
      'if-none-match': optional(headerText),
      'x-many': mostly(fc.constant(undefined), fc.array(headerText, { maxLength: 120 })),
    })
    .map((all) =>
      Object.fromEntries(
        Object.entries(all).filter((entry): entry is [string, string | string[]] => entry[1] !== undefined),
      ),
    );

const sent = (
  method: fc.Arbitrary<string>,
  path: fc.Arbitrary<string>,
  withBody: boolean,
  headers = headersFor(right(credentials)),
): fc.Arbitrary<Sent> =>
  fc
    .tuple(method, path, query, headers, withBody ? body : mostly(fc.constant(undefined), body))
    .map(([verb, route, search, sentHeaders, text]) => ({
      method: verb,
      target: search === '' ? route : `${route}?${search}`,
      headers: sentHeaders,
      body: text,
    }));

const instancePath = id.map((instanceId) => `/v2/service_instances/${instanceId}`);
const bindingPath = fc
  .tuple(instancePath, mostly(one('bound', 'other'), encoded))
  .map(([path, bindingId]) => `${path}/service_bindings/${bindingId}`);

// Deletes come last because the others need what they delete.
it.each([
  ['GET catalog', 'GET', fc.constant('/v2/catalog'), false],
  ['PUT instance', 'PUT', instancePath, true],
  ['PATCH instance', 'PATCH', instancePath, true],
  ['GET instance', 'GET', instancePath, false],
  ['GET last_operation of an instance', 'GET', instancePath.map((path) => `${path}/last_operation`), false],
  ['PUT binding', 'PUT', bindingPath, true],
  ['GET binding', 'GET', bindingPath, false],
  ['GET last_operation of a binding', 'GET', bindingPath.map((path) => `${path}/last_operation`), false],
  ['DELETE binding', 'DELETE', bindingPath, false],
  ['DELETE instance', 'DELETE', mostly(one('/v2/service_instances/never-seen'), instancePath), false],
] as const)(
  'properties: %s',
  async (_name, method, path, withBody) => {
    await check(
      fc.asyncProperty(sent(fc.constant(method), path, withBody), (one) => holds(one, listener.port)),
    );
  },
  120_000,
);

it('properties: any method, any path', async () => {
  const method = one(
    'GET',
    'HEAD',
    'POST',
    'PUT',
    'PATCH',
    'DELETE',
    'OPTIONS',
    'TRACE',
    'PROPFIND',
    'M-SEARCH',
  );
  const path = fc.oneof(
    instancePath,
    bindingPath,
    fc.array(encoded, { maxLength: 6 }).map((parts) => `/${parts.join('/')}`),
    encoded.map((end) => `/v2/catalog/${end}`),
  );
  await check(fc.asyncProperty(sent(method, path, true), (one) => holds(one, listener.port)));
}, 120_000);

// Without health, which answers 503 because no worker runs here.
const hostPath = mostly(
  fc.oneof(
    fc.uuid(),
    fc.constant('').map(() => readyHost),
  ),
  encoded,
).map((host) => `/mgmt/hosts/${host}`);
const platformPath = mostly(one('other', 'test', 'never-seen'), encoded).map(
  (name) => `/mgmt/platforms/${name}`,
);
it.each([
  [
    'GET',
    'GET',
    one('metrics', 'hosts', 'audit', 'keys', 'certificate-authorities', 'platforms').map(
      (what) => `/mgmt/${what}`,
    ),
  ],
  [
    'PUT power',
    'PUT',
    fc
      .tuple(hostPath, mostly(one('running', 'paused', 'suspended'), encoded))
      .map(([path, power]) => `${path}/power/${power}`),
  ],
  ['DELETE quarantine', 'DELETE', hostPath.map((path) => `${path}/quarantine`)],
  [
    'POST verify and rotate',
    'POST',
    fc.oneof(
      mostly(fc.uuid(), encoded).map((host) => `/mgmt/verify/${host}`),
      one('keys', 'certificate-authorities/client', 'certificate-authorities/other').map(
        (what) => `/mgmt/${what}/rotate`,
      ),
    ),
  ],
  ['PUT platform', 'PUT', platformPath],
  [
    'POST and DELETE password',
    one('POST', 'DELETE'),
    platformPath.chain((path) => one(`${path}/passwords`, `${path}/passwords/oldest`)),
  ],
] as const)(
  'properties: management, %s',
  async (_name, method, path) => {
    const verb = typeof method === 'string' ? fc.constant(method) : method;
    const asked = sent(verb, path, true, headersFor(right(operator)));
    await check(fc.asyncProperty(asked, (one) => holds(one, mgmt.port)));
  },
  120_000,
);

/** Generated too rarely to occur in every run. */
it.each([
  ['a NUL', 'a\0b', 'NUL'],
  ['an unpaired surrogate', 'x\ud800', 'unpaired UTF-16 surrogate'],
])('request body: refuses %s anywhere and names it', async (_name, invalid, words) => {
  const bodies = [
    { context: { instance_name: invalid } },
    { context: { deeper: [{ [invalid]: 1 }] } },
    { parameters: { x: invalid } },
    { organization_guid: invalid },
  ];
  for (const [index, change] of bodies.entries()) {
    const answer = await broker
      .ask('put', `${instance(`invalid-${index}`)}?accepts_incomplete=true`)
      .send({ ...provisionBody, ...change });
    expect([answer.status, (answer.body as { description: string }).description]).toEqual([
      400,
      expect.stringContaining(words),
    ]);
  }
});

it.each([
  ['POST', '/mgmt/platforms/a%00/passwords'],
  ['DELETE', '/mgmt/platforms/a%00/passwords/oldest'],
  ['PUT', '/mgmt/platforms/a%00'],
  ['PUT', '/mgmt/hosts/a%00/power/on'],
  ['DELETE', '/mgmt/hosts/a%00/quarantine'],
  ['POST', '/mgmt/verify/a%00'],
  ['GET', '/mgmt/audit?instance=a%00'],
  ['GET', '/mgmt/audit?since=-271821-04-20T00:00:00Z'],
])("management: refuses text that Postgres can't store, %s %s", async (method, target) => {
  const { status } = await send(
    { method, target, headers: { authorization: right(operator) }, body: undefined },
    mgmt.port,
  );
  expect([400, 404]).toContain(status);
});
