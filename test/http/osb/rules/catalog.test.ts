import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { loadCatalog } from '../../../../src/core/catalog/load.ts';
import { toOsbCatalog } from '../../../../src/http/osb/catalog-body.ts';
import { maximumPollingSeconds } from '../../../../src/core/operation-deadline.ts';
import { refuseDroppedPlans } from '../../../../src/core/catalog/dropped-plans.ts';
import { createPlansInUse } from '../../../../src/postgres/plans-in-use.ts';
import { catalogFile, ids } from '../../../support/broker.ts';
import { type OsbBroker, makeOsbBroker } from '../../../support/osb-broker.ts';

let on: OsbBroker;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'));
});
afterAll(() => on.stop());

interface Shown {
  services: (Record<string, unknown> & { plans: Record<string, unknown>[] })[];
}
const shown = async (version = '2.17') =>
  (await on.ask('get', '/v2/catalog', undefined, { version })).body as unknown as Shown;
const [offering] = catalogFile.offerings;
const [small, large] = offering?.plans ?? [];
const load = (change: object = {}, plans: object[] = [small ?? {}, large ?? {}]) =>
  loadCatalog({ offerings: [{ ...offering, plans, ...change }] }, 'catalog.yaml');

describe('catalog rules', () => {
  it.each<[string, () => unknown, RegExp]>([
    ['8a: refuses an id that is used twice', () => load({ id: ids.plan }), /globally unique/],
    [
      '8b: refuses a plan id that is used twice',
      () => load({}, [small ?? {}, { ...large, id: ids.plan }]),
      /globally/,
    ],
    ['8c: refuses an empty id', () => load({ id: '' }), /\/id /],
    [
      '8d: refuses an offering name that is used twice',
      () =>
        loadCatalog(
          { offerings: [offering, { ...offering, id: 'x', plans: [{ ...small, id: 'y', name: 'z' }] }] },
          'c',
        ),
      /two offerings are named/,
    ],
    [
      '8e: refuses a plan name that is used twice',
      () => load({}, [small ?? {}, { ...large, name: 'small' }]),
      /two plans/,
    ],
    ['8f: refuses a name with a space', () => load({ name: 'container host' }), /\/name /],
    // CLI-friendly is alphanumeric characters, periods and hyphens (OSB 2.17, "Catalog Management").
    ['8g: refuses a name with an underscore', () => load({ name: 'container_host' }), /\/name /],
    ['8h: refuses an empty description', () => load({ description: '' }), /\/description /],
    [
      '8i: refuses a description of 10,001 characters',
      () => load({ description: 'x'.repeat(10_001) }),
      /\/description /,
    ],
    ['8j: refuses an offering without a plan', () => load({}, []), /\/plans /],
    [
      '8k: refuses tags of more than 2,048 characters together',
      () => load({ tags: ['x'.repeat(2000), 'y'.repeat(49)] }),
      /2048/,
    ],
    ['8l: refuses a plan without `free`', () => load({}, [{ ...small, free: undefined }]), /free/],
  ])('%s', (_, act, words) => {
    expect(act).toThrow(words);
  });
});

it('8m: accepts a catalog exactly at the limits', () => {
  expect(() =>
    load({ description: 'x'.repeat(10_000), tags: ['x'.repeat(2000), 'y'.repeat(48)], name: 'a.b-c9' }),
  ).not.toThrow();
});

it('8n: shows the ids, names and descriptions of its file, and `free` for every plan', async () => {
  const { services } = await shown();
  expect(services).toHaveLength(1);
  expect(services[0]).toMatchObject({
    id: offering?.id,
    name: offering?.name,
    description: offering?.description,
  });
  expect(
    services[0]?.plans.map(({ id, name, description, free }) => ({ id, name, description, free })),
  ).toEqual(offering?.plans.map(({ id, name, description, free }) => ({ id, name, description, free })));
});

it("8o: declares what works, in the specification's spelling", async () => {
  const [service] = (await shown()).services;
  expect(service).toMatchObject({
    bindable: true,
    instances_retrievable: true,
    bindings_retrievable: true,
    plan_updateable: true,
    allow_context_updates: true,
  });
  for (const plan of service?.plans ?? []) {
    expect(plan).toMatchObject({ bindable: true, plan_updateable: true, binding_rotatable: true });
  }
});

it('8p: is shareable only if the file says so', async () => {
  expect((await shown()).services[0]?.['metadata']).toEqual({ shareable: false });
  const shareable = toOsbCatalog(load({ metadata: { shareable: true } }), {
    simulated: false,
    imageVersion: undefined,
    newerFields: true,
  });
  expect((shareable as unknown as Shown).services[0]?.['metadata']).toEqual({ shareable: true });
});

it.each(['space', 'instance'])('8p: can not be shareable if a tenant is one %s', (tenant) => {
  expect(() => load({ tenant, metadata: { shareable: true } })).toThrow(/is shareable.*set tenant to org/);
});

it('1e: shows no field newer than 2.14 to an older platform', async () => {
  const newer = ['maintenance_info', 'maximum_polling_duration', 'binding_rotatable', 'plan_updateable'];
  const [old, recent] = [await shown('2.14'), await shown('2.15')];
  for (const field of newer) {
    expect(old.services[0]?.plans[0]).not.toHaveProperty(field);
    expect(recent.services[0]?.plans[0]).toHaveProperty(field);
  }
  expect(old.services[0]).not.toHaveProperty('allow_context_updates');
});

const schemasOf = (plan: Record<string, unknown> | undefined) => {
  const { service_instance: instance, service_binding: binding } = plan?.['schemas'] as {
    service_instance: { create: { parameters: object }; update: { parameters: object } };
    service_binding: { create: { parameters: object } };
  };
  return [instance.create.parameters, instance.update.parameters, binding.create.parameters];
};

it('9a: has draft 04 schemas for create, update and bind', async () => {
  const schemas = (await shown()).services.flatMap(({ plans }) => plans.flatMap(schemasOf));
  expect(schemas).toHaveLength(6);
  for (const schema of schemas) {
    expect(schema).toHaveProperty('$schema', 'http://json-schema.org/draft-04/schema#');
  }
});

it('9b: uses no keyword newer than draft 04 and no reference', async () => {
  // New in draft 06 and 07; below, exclusive limits as numbers have another meaning there.
  const later =
    /"(const|contains|propertyNames|examples|if|then|else|\$id|\$comment|readOnly|contentEncoding)":/;
  for (const schema of (await shown()).services.flatMap(({ plans }) => plans.flatMap(schemasOf))) {
    const text = JSON.stringify(schema);
    expect(text).not.toMatch(later);
    expect(text).not.toMatch(/"exclusiveM(in|ax)imum":\d/);
    expect(text).not.toContain('"$ref"');
  }
});

it('9c: shows schemas of at most 64 kB', async () => {
  for (const schema of (await shown()).services.flatMap(({ plans }) => plans.flatMap(schemasOf))) {
    expect(Buffer.byteLength(JSON.stringify(schema))).toBeLessThanOrEqual(64 * 1024);
  }
});

it('9d: validates requests with the schemas that it shows', async () => {
  const [create] = schemasOf((await shown()).services[0]?.plans[0]) as {
    properties: Record<string, { maximum?: number }>;
  }[];
  const most = create?.properties['published_ports']?.maximum ?? 0;
  expect(most).toBeGreaterThan(0);
  expect((await on.put(randomUUID(), { parameters: { published_ports: most } })).status).toBe(201);
  expect((await on.put(randomUUID(), { parameters: { published_ports: most + 1 } })).status).toBe(400);
});

/** From semver.org, 2.0.0. */
const semver =
  /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$/;

it('10a: has maintenance_info with a semantic version and a description, at most 2,000 characters', async () => {
  for (const plan of (await shown()).services[0]?.plans ?? []) {
    const info = plan['maintenance_info'] as { version: string };
    expect(Object.keys(info).sort()).toEqual(['description', 'version']);
    expect(info.version).toMatch(semver);
    expect(JSON.stringify(info).length).toBeLessThanOrEqual(2_000);
  }
});

it('10b: has a maximum_polling_duration in whole seconds', async () => {
  for (const plan of (await shown()).services[0]?.plans ?? []) {
    expect(plan['maximum_polling_duration']).toBe(maximumPollingSeconds);
  }
  expect(Number.isInteger(maximumPollingSeconds)).toBe(true);
  expect(maximumPollingSeconds).toBeGreaterThan(0);
});

const conditional = (tag: string, version = '2.17') =>
  on.ask('get', '/v2/catalog', undefined, { version, headers: { 'If-None-Match': tag } });

it('11a: has an ETag, the same for the same catalog in every api process', async () => {
  const first = await on.ask('get', '/v2/catalog');
  expect(first.headers['etag']).toMatch(/^"[0-9a-f]{32}"$/);
  const other = await on.ask('get', '/v2/catalog', undefined, { wait: false });
  expect(other.headers['etag']).toBe(first.headers['etag']);
});

it('11b: answers 304 without a body if the ETag matches, weak or in a list', async () => {
  const tag = (await on.ask('get', '/v2/catalog')).headers['etag'] ?? '';
  for (const sent of [tag, `W/${tag}`, `"other", ${tag}`, '*']) {
    const answer = await conditional(sent);
    expect([sent, answer.status, answer.body]).toEqual([sent, 304, {}]);
    expect(answer.headers['etag']).toBe(tag);
  }
});

it('11c: answers 200 if the ETag does not match', async () => {
  expect((await conditional('"other"')).status).toBe(200);
  // An older platform gets another catalog.
  const tag = (await on.ask('get', '/v2/catalog')).headers['etag'] ?? '';
  expect((await conditional(tag, '2.14')).status).toBe(200);
});

it('12a: names the file and every rule that is broken', () => {
  const act = () => load({ name: 'a b', description: '' });
  expect(act).toThrow(/catalog\.yaml/);
  expect(act).toThrow(/\/name .*; .*\/description /);
});

describe('a catalog that drops a plan in use', () => {
  const without = (plan: string) =>
    load(
      {},
      (offering?.plans ?? []).filter(({ id }) => id !== plan),
    );
  const start = (catalog: ReturnType<typeof load>) =>
    refuseDroppedPlans(createPlansInUse(on.broker.database), catalog);

  it('12b: a catalog that drops a plan in use stops the start and names the plan and the number of instances', async () => {
    const one = await on.newInstance({ plan_id: ids.otherPlan });
    await expect(start(without(ids.otherPlan))).rejects.toThrow(
      `the plan ${ids.otherPlan} (large) of the offering ${ids.service}, which 1 instance uses`,
    );
    const two = await on.newInstance({ plan_id: ids.otherPlan });
    await expect(start(without(ids.otherPlan))).rejects.toThrow('which 2 instances use');
    await expect(start(load())).resolves.toBeUndefined();
    await on.remove(one);
    await on.remove(two);
    await expect(start(without(ids.otherPlan))).resolves.toBeUndefined();
  });

  it('12b: a plan in use may not move to another offering, nor go while its only instance has failed to create', async () => {
    await expect(start(load({ id: 'another-offering' }))).rejects.toThrow(ids.service);
    const failed = randomUUID();
    await on.put(failed, { plan_id: ids.otherPlan });
    await on.broker.database('instances').where({ osb_id: failed }).update({ state: 'failed' });
    await expect(start(without(ids.otherPlan))).rejects.toThrow('1 instance uses');
    await on.remove(failed);
  });
});
