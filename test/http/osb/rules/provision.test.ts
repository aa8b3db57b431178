import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { builtInCatalog } from '../../../../src/core/catalog/built-in.ts';
import { allPlans } from '../../../../src/core/catalog/lookup.ts';
import { bindSchema, provisionSchema } from '../../../../src/core/catalog/parameter-schemas.ts';
import { loadCatalog } from '../../../../src/core/catalog/load.ts';
import { catalogFile, hints, ids, instance, provisionBody } from '../../../support/broker.ts';
import {
  accepting,
  asyncRequired,
  type OsbBroker,
  concurrencyError,
  maintenanceInfoConflict,
  makeOsbBroker,
} from '../../../support/osb-broker.ts';

const [offering] = catalogFile.offerings;
const elsewhere = { service_id: 'service-2', plan_id: 'plan-elsewhere' };
let on: OsbBroker;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'), {
    catalog: {
      offerings: [
        offering,
        {
          ...offering,
          id: elsewhere.service_id,
          name: 'elsewhere',
          plans: [{ ...offering?.plans[0], id: elsewhere.plan_id, name: 'elsewhere' }],
        },
      ],
    },
  });
});
afterAll(() => on.stop());

const tenantOf = async (id: string) => {
  const instances = on.broker.database('instances').join('tenants', 'tenants.id', 'instances.tenant_id');
  const [key] = (await instances.where({ osb_id: id }).pluck('key')) as unknown[];
  return key;
};
const version = () => on.broker.hypervisor.imageVersion();

it.each(['service_id', 'plan_id', 'organization_guid', 'space_guid'])(
  '19a: refuses a create whose %s is missing, empty or of another type with 400 and names the field',
  async (field) => {
    for (const value of [undefined, '', null, 7, {}]) {
      const answer = await on.put(randomUUID(), { [field]: value });
      expect([value, answer.status]).toEqual([value, 400]);
      expect(answer.body['description']).toContain(field);
    }
  },
);

it.each([
  ['19b: a service_id that is not in the catalog', { service_id: 'unknown' }, 'service_id'],
  ['19c: a plan_id that is not in the catalog', { plan_id: 'unknown' }, 'plan_id'],
  ['19d: a plan of another offering', { plan_id: elsewhere.plan_id }, 'plan_id'],
  ['19e: parameters that are not an object', { parameters: [] }, 'parameters'],
  ['19f: an unknown parameter', { parameters: { colour: 'red' } }, 'colour'],
  [
    '19g: a parameter of the wrong type',
    { parameters: { published_ports: 'ten' } },
    'parameters/published_ports',
  ],
  ['19h: a parameter deep inside', { parameters: { egress: ['10.0.0.0/99'] } }, 'parameters/egress/0'],
  ['19i: a context that is not an object', { context: 'cloudfoundry' }, 'context'],
])('%s is refused with 400 and the path of the field', async (_, change, words) => {
  const id = randomUUID();
  const answer = await on.put(id, change);
  expect(answer.status).toBe(400);
  expect(answer.body['description']).toContain(words);
  expect((await on.last(id)).status).toBe(404);
});

it('19j: takes the tenant from organization_guid and space_guid if the context is absent or partial', async () => {
  const fields = { organization_guid: 'org-j', space_guid: 'space-j' };
  for (const context of [undefined, null, {}, { platform: 'cloudfoundry' }, { organization_guid: '' }]) {
    expect(await tenantOf(await on.newInstance({ ...fields, context }))).toBe('["org","org-j"]');
  }
  const kubernetes = { platform: 'kubernetes', clusterid: 'c' };
  expect(await tenantOf(await on.newInstance({ ...fields, context: kubernetes }))).toBe(
    '["kubernetes","c","space-j"]',
  );
});

it('19k: takes the platform from the credential, never from the context', async () => {
  const id = await on.newInstance({ context: { platform: 'somebody-else', organization_guid: 'org-1' } });
  const row = (await on.broker.database('instances').where({ osb_id: id }).first()) as {
    platform_id: string;
  };
  expect(row.platform_id).toBe(on.broker.platformId);
  expect((await on.put(id)).status).toBe(200);
});

it('20a: answers the same request after success with 200, with and without accepts_incomplete', async () => {
  const id = await on.newInstance();
  expect((await on.put(id)).status).toBe(200);
  expect((await on.put(id, {}, '')).status).toBe(200);
  expect((await on.ask('put', `${instance(id)}?${accepting}`, provisionBody, { wait: false })).status).toBe(
    200,
  );
});

it('20b: answers the same request while it runs with 202 and the same operation', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async (operation) => {
    const again = await on.ask('put', `${instance(id)}?${accepting}`, provisionBody, { wait: false });
    expect(on.operationOf(again)).toBe(operation);
    expect((await on.put(id, {}, '')).body).toEqual(asyncRequired);
  });
});

it.each([
  ['plan', { plan_id: ids.otherPlan }],
  ['offering', elsewhere],
  ['parameters', { parameters: { egress: 'none' } }],
  ['tenant', { organization_guid: 'another' }],
])(
  '20c: refuses a different %s under the same id with 409, during and after the create',
  async (_, change) => {
    const id = randomUUID();
    await on.duringCreate(id, async () => {
      expect((await on.put(id, change)).status).toBe(409);
    });
    expect((await on.put(id, change)).status).toBe(409);
    expect((await on.get(id)).body).toMatchObject({ plan_id: ids.plan, parameters: {} });
  },
);

it('20d: ignores names in the context, maintenance_info and identity when it compares requests', async () => {
  const id = await on.newInstance();
  for (const change of [
    { context: { instance_name: 'renamed', organization_name: 'renamed' } },
    { maintenance_info: { version: '0.0.1' } },
    { colour: 'red' },
    { parameters: null },
  ]) {
    expect([change, (await on.put(id, change)).status]).toEqual([change, 200]);
  }
  const identity = {
    'X-Broker-API-Originating-Identity': `x ${Buffer.from('{"user":"2"}').toString('base64')}`,
  };
  const route = `${instance(id)}?${accepting}`;
  expect((await on.ask('put', route, provisionBody, { headers: identity })).status).toBe(200);
});

it('20e: compares a request with the current plan and parameters, not with the first request', async () => {
  const id = await on.newInstance();
  expect((await on.patch(id, { plan_id: ids.otherPlan, parameters: { egress: 'none' } })).status).toBe(200);
  expect((await on.put(id, { plan_id: ids.otherPlan, parameters: { egress: 'none' } })).status).toBe(200);
  expect((await on.put(id)).status).toBe(409);
});

it('20f: refuses a create after a failed one with 409 until the instance is deleted', async () => {
  const id = randomUUID();
  await on.failCreate(id);
  expect((await on.put(id)).status).toBe(409);
  expect((await on.put(id, { plan_id: ids.otherPlan })).status).toBe(409);
});

it('20g: creates one instance for identical requests at the same time', async () => {
  const id = randomUUID();
  const answers = await Promise.all(Array.from({ length: 5 }, () => on.put(id)));
  expect(answers.filter(({ status }) => status !== 200 && status !== 201)).toEqual([]);
  const hosts = on.broker.database('hosts').join('instances', 'instances.id', 'instance_id');
  expect(await hosts.where({ osb_id: id })).toHaveLength(1);
});

it('21a: refuses a stale maintenance_info with 422 MaintenanceInfoConflict and accepts the current one', async () => {
  const answer = await on.put(randomUUID(), { maintenance_info: { version: '0.0.1' } });
  expect([answer.status, answer.body]).toEqual([422, maintenanceInfoConflict]);
  await on.newInstance({ maintenance_info: { version: version() } });
});

it('21b: treats empty optional objects and strings as absent', async () => {
  await on.newInstance({ maintenance_info: {}, context: {}, parameters: {} });
  await on.newInstance({ maintenance_info: { version: '' }, context: null, parameters: null });
  await on.newInstance({ maintenance_info: null, context: { organization_guid: '', space_guid: '' } });
  const id = await on.newInstance();
  expect(
    (
      await on.bind(id, 'a', {
        bind_resource: {},
        app_guid: '',
        predecessor_binding_id: '',
        parameters: null,
      })
    ).status,
  ).toBe(201);
  // The same request as without these fields.
  expect((await on.bind(id, 'a')).status).toBe(200);
  expect((await on.bind(id, 'a', { bind_resource: { app_guid: '' } })).status).toBe(200);
});

it("21c: shows the version of the host's image on GET", async () => {
  const id = await on.newInstance();
  expect((await on.get(id)).body['maintenance_info']).toEqual({ version: version() });
  await on.broker.database('hosts').update({ image_version: '0.9.0' });
  expect((await on.get(id)).body['maintenance_info']).toEqual({ version: '0.9.0' });
  await on.broker.database('hosts').update({ image_version: version() });
});

it('22a: omits dashboard_url from every answer', async () => {
  const id = randomUUID();
  const create = await on.ask('put', `${instance(id)}?${accepting}`, provisionBody, { wait: false });
  await on.ended(id);
  const answers = [
    create,
    await on.put(id),
    await on.get(id),
    await on.patch(id, { plan_id: ids.otherPlan }),
  ];
  expect(answers.map(({ status }) => status)).toEqual([202, 200, 200, 200]);
  for (const { body } of answers) expect(body).not.toHaveProperty('dashboard_url');
});

it('22b: sends metadata with labels and attributes (strings) on provision, update and fetch', async () => {
  const id = randomUUID();
  const answers = [await on.put(id), await on.patch(id, { plan_id: ids.otherPlan }), await on.get(id)];
  for (const [index, { body }] of answers.entries()) {
    const { labels, attributes } = body['metadata'] as {
      labels: object;
      attributes: Record<string, unknown>;
    };
    expect(labels).toEqual({});
    expect(attributes['plan']).toBe(index === 0 ? 'small' : 'large');
    expect(Object.values(attributes).filter((value) => typeof value !== 'string')).toEqual([]);
  }
});

it('23a: answers a GET of an instance that is being created with 404', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async () => {
    expect((await on.get(id)).status).toBe(404);
  });
});

it('23b: answers a GET while an update runs with 422 ConcurrencyError', async () => {
  const id = await on.newInstance();
  await on.duringUpdate(id, async () => {
    const answer = await on.get(id);
    expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
  });
});

it('23c: answers a GET of an instance that is being deleted, or was deleted, with 404', async () => {
  const id = await on.newInstance();
  await on.duringDelete(id, async () => {
    expect((await on.get(id)).status).toBe(404);
  });
  expect((await on.get(id)).status).toBe(404);
  expect((await on.get(randomUUID())).status).toBe(404);
});

it('23d: answers a GET correctly as soon as a create or update has succeeded', async () => {
  const id = await on.newInstance({ parameters: { egress: 'none' } });
  expect(await on.get(id)).toMatchObject({
    status: 200,
    body: { service_id: ids.service, plan_id: ids.plan, parameters: { egress: 'none' } },
  });
  await on.patch(id, { plan_id: ids.otherPlan, parameters: { egress: null } });
  expect((await on.get(id)).body).toMatchObject({ plan_id: ids.otherPlan, parameters: {} });
});

it('23e: accepts service_id and plan_id on GET as optional hints', async () => {
  const id = await on.newInstance();
  for (const query of ['', `?${hints}`, `?plan_id=${ids.otherPlan}`])
    expect((await on.get(id, query)).status).toBe(200);
  for (const query of ['?service_id=unknown', '?plan_id=unknown'])
    expect((await on.get(id, query)).status).toBe(400);
});

it('23f: has no secret parameter, which GET would have to omit', () => {
  const [plan] = allPlans(loadCatalog(builtInCatalog, 'test'));
  if (plan === undefined) throw new Error('no plan');
  const names = [provisionSchema(plan), bindSchema(plan)].flatMap(({ properties }) =>
    Object.keys(properties as object),
  );
  expect(names.sort()).toEqual([
    'egress',
    'expires_after',
    'idle',
    // These can't contain a password or a key: certificates, and names without user information.
    'insecure_registries',
    'published_ports',
    'registry_authorities',
    'registry_mirrors',
    'valid_for',
  ]);
});
