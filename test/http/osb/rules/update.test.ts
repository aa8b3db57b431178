/* eslint-disable max-lines -- one file per chapter of docs/osb.md, whose rules share one broker */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { catalogFile, hints, ids, instance } from '../../../support/broker.ts';
import { eventually } from '../../../support/eventually.ts';
import {
  accepting,
  asyncRequired,
  type OsbBroker,
  concurrencyError,
  maintenanceInfoConflict,
  makeOsbBroker,
} from '../../../support/osb-broker.ts';

const [offering] = catalogFile.offerings;
const [small] = offering?.plans ?? [];
const disk = 'plan-disk';
const quiet = 'plan-quiet';
let on: OsbBroker;
beforeAll(async () => {
  on = await makeOsbBroker(inject('postgres'), {
    catalog: {
      offerings: [
        {
          ...offering,
          plans: [
            ...(offering?.plans ?? []),
            { ...small, id: disk, name: 'disk', host: { ...small?.host, disk_gib: 8 } },
            { ...small, id: quiet, name: 'quiet', egress: 'none' },
          ],
        },
      ],
    },
  });
});
afterAll(() => on.stop());

const current = { version: () => on.broker.hypervisor.imageVersion() };
const recorded = async (id: string) => {
  const row = (await on.broker.database('instances').where({ osb_id: id }).first()) as { id: string };
  const { plan_id, parameters, context } = row as unknown as Record<string, unknown>;
  const host = await on.broker.store.records.hostOfInstance(row.id);
  return { plan_id, parameters, context, host };
};
const setHost = (id: string, change: object) =>
  on.broker
    .database('hosts')
    .whereIn('instance_id', on.broker.database('instances').where({ osb_id: id }).select('id'))
    .update(change);
/** Checks that an update, without accepts_incomplete, has no effect on the host. */
const hasNoEffect = async (id: string, change: object) => {
  const { host } = await recorded(id);
  const answer = await on.patch(id, change, '');
  expect([change, answer.status, answer.text]).toEqual([change, 200, '{}']);
  expect((await recorded(id)).host).toEqual(host);
};

it('21d: refuses a PATCH whose maintenance_info is stale for the target plan with 422', async () => {
  const id = await on.newInstance();
  const before = await recorded(id);
  const stale = { plan_id: ids.otherPlan, maintenance_info: { version: '0.0.1' } };
  const answer = await on.patch(id, stale);
  expect([answer.status, answer.body]).toEqual([422, maintenanceInfoConflict]);
  expect(await recorded(id)).toEqual(before);
  expect((await on.patch(id, { ...stale, maintenance_info: { version: current.version() } })).status).toBe(
    200,
  );
});

it('21e: upgrades the image only on a PATCH with maintenance_info', async () => {
  const id = await on.newInstance();
  // The host has an older image; the simulated hypervisor knows that only from the record.
  const { host } = await recorded(id);
  await on.broker.database('hosts').where({ id: host?.id }).update({ image_version: '0.9.0' });
  for (const change of [{ parameters: { egress: 'none' } }, { plan_id: quiet }, { maintenance_info: {} }]) {
    await on.patch(id, { ...change, context: { instance_name: 'x' } });
    expect([change, (await recorded(id)).host?.imageVersion]).toEqual([change, '0.9.0']);
  }
  expect((await on.patch(id, { maintenance_info: { version: current.version() } })).status).toBe(200);
  expect((await recorded(id)).host?.imageVersion).toBe(current.version());
});

it('21f: treats empty previous_values, strings and objects of a PATCH as absent', async () => {
  await hasNoEffect(await on.newInstance(), {
    plan_id: '',
    parameters: null,
    previous_values: {},
    maintenance_info: { version: '' },
    context: { organization_guid: '', instance_name: 'x' },
  });
});

it('21g: treats empty and null fields in the context of a create as absent, so a PATCH may supply them', async () => {
  for (const empty of ['', null]) {
    const id = await on.newInstance({ context: { organization_guid: empty, space_guid: empty } });
    const context = { organization_guid: 'org-1', space_guid: 'space-1', instance_name: 'renamed' };
    await hasNoEffect(id, { context: { ...context, organization_name: empty } });
    expect((await recorded(id)).context).toEqual(context);
  }
});

it('24a: retains the plan if no plan_id is sent', async () => {
  const id = await on.newInstance({ plan_id: ids.otherPlan });
  expect((await on.patch(id, { parameters: { egress: 'none' } })).status).toBe(200);
  expect(await recorded(id)).toMatchObject({ plan_id: ids.otherPlan, host: { planName: 'large' } });
});

it('24b: retains the parameters if none are sent', async () => {
  const id = await on.newInstance({ parameters: { egress: 'none' } });
  expect((await on.patch(id, { plan_id: ids.otherPlan })).status).toBe(200);
  expect(await recorded(id)).toMatchObject({
    parameters: { egress: 'none' },
    host: { egress: { kind: 'none' } },
  });
});

it('24c: merges parameters by top-level key', async () => {
  const id = await on.newInstance({ parameters: { published_ports: 3, egress: 'none' } });
  expect((await on.patch(id, { parameters: { published_ports: 5 } })).status).toBe(200);
  expect((await on.get(id)).body['parameters']).toEqual({ published_ports: 5, egress: 'none' });
});

it('24d: removes a parameter that is null', async () => {
  const id = await on.newInstance({ parameters: { published_ports: 3, egress: 'none' } });
  expect((await on.patch(id, { parameters: { published_ports: null } })).status).toBe(200);
  expect(await recorded(id)).toMatchObject({
    parameters: { egress: 'none' },
    host: { publishedPorts: { count: 10 } },
  });
  // The create schema does not allow null.
  expect((await on.put(randomUUID(), { parameters: { published_ports: null } })).status).toBe(400);
});

it("24e: validates the merged parameters with the target plan's create schema", async () => {
  const id = await on.newInstance({ parameters: { egress: 'internet' } });
  const before = await recorded(id);
  const answer = await on.patch(id, { plan_id: quiet });
  expect(answer.status).toBe(400);
  expect(answer.body['description']).toMatch(/^parameters\/egress /);
  expect(await recorded(id)).toEqual(before);
  expect((await on.patch(id, { plan_id: quiet, parameters: { egress: null } })).status).toBe(200);
});

it('25a: answers a repeated PATCH while it runs with 202 and the same operation', async () => {
  const id = await on.newInstance();
  await on.duringUpdate(id, async (operation) => {
    const again = await on.ask(
      'patch',
      `${instance(id)}?${accepting}`,
      { service_id: ids.service, plan_id: ids.otherPlan },
      { wait: false },
    );
    expect(on.operationOf(again)).toBe(operation);
    expect((await on.patch(id, { plan_id: ids.otherPlan }, '')).body).toEqual(asyncRequired);
  });
});

it('25b: refuses a different PATCH while one runs with 422 ConcurrencyError', async () => {
  const id = await on.newInstance();
  await on.duringUpdate(id, async () => {
    for (const change of [{ plan_id: disk }, { plan_id: ids.plan }, { parameters: { egress: 'none' } }]) {
      const answer = await on.patch(id, change);
      expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
    }
  });
  expect(await recorded(id)).toMatchObject({ plan_id: ids.otherPlan, parameters: {} });
});

it('25c: answers a PATCH without an effect with 200 {}', async () => {
  const id = await on.newInstance({ parameters: { published_ports: 10 } });
  for (const change of [
    { plan_id: ids.plan },
    { parameters: {} },
    { parameters: { published_ports: 10 } },
    // The plan's default.
    { parameters: { published_ports: null } },
  ]) {
    await hasNoEffect(id, change);
  }
});

it('25d: answers a PATCH of an unknown or deleted instance with 404', async () => {
  expect((await on.patch(randomUUID(), { plan_id: ids.otherPlan })).status).toBe(404);
  const id = await on.newInstance();
  await on.remove(id, `?${accepting}&${hints}`);
  expect((await on.patch(id, { plan_id: ids.otherPlan })).status).toBe(404);
});

it('25e: refuses a PATCH while the instance is being created with 422 ConcurrencyError', async () => {
  const id = randomUUID();
  await on.duringCreate(id, async () => {
    const answer = await on.patch(id, { plan_id: ids.otherPlan });
    expect([answer.status, answer.body]).toEqual([422, concurrencyError]);
  });
});

it('26a: refuses a smaller disk with 422 and changes nothing', async () => {
  const id = await on.newInstance({ plan_id: disk });
  const before = await on.tables();
  const answer = await on.patch(id, { plan_id: ids.plan, context: { instance_name: 'new' } });
  expect(answer.status).toBe(422);
  expect(answer.body['description']).toMatch(/smaller disk \(4 GiB\) than the host has now \(8 GiB\)/);
  expect(await on.tables()).toEqual(before);
});

it('26b: restores the instance if an update fails and reports that it is usable', async () => {
  const id = await on.newInstance();
  const made = await on.bind(id, 'b');
  const { host: before, ...row } = await recorded(id);
  await on.failUpdate(id);
  expect((await on.last(id)).body).toMatchObject({ state: 'failed', instance_usable: true });
  const { host, ...after } = await recorded(id);
  expect(after).toEqual(row);
  expect(host).toMatchObject({ id: before?.id, planName: 'small', shape: before?.shape, state: 'running' });
  expect(host?.engine).toBeDefined();
  expect((await on.bind(id, 'b')).body).toEqual(made.body);
});

it.each<[string, object, string]>([
  ['with the current plan_id', { plan_id: ids.plan }, ''],
  ['with parameters {}', { parameters: {} }, ''],
  ['with both and accepts_incomplete', { plan_id: ids.plan, parameters: {} }, `?${accepting}`],
  ['alone', {}, ''],
])(
  '27a: answers a context that renames the instance, %s, with 200 {} and stores it',
  async (_, more, query) => {
    const id = await on.newInstance();
    const context = { platform: 'cloudfoundry', organization_guid: 'org-1', instance_name: 'renamed' };
    const answer = await on.patch(id, { context, ...more }, query);
    expect([answer.status, answer.body]).toEqual([200, {}]);
    expect((await recorded(id)).context).toMatchObject({ instance_name: 'renamed', space_guid: 'space-1' });
  },
);

it('27b: refuses a PATCH with only service_id with 422', async () => {
  const id = await on.newInstance();
  for (const change of [
    {},
    { previous_values: { plan_id: ids.plan } },
    { context: {}, maintenance_info: {} },
  ]) {
    expect([change, (await on.patch(id, change)).status]).toEqual([change, 422]);
  }
});

it('27c: refuses a context that would change the tenant with 422 and changes nothing', async () => {
  const id = await on.newInstance();
  const before = await recorded(id);
  for (const context of [
    { organization_guid: 'another' },
    { platform: 'kubernetes', clusterid: 'c', namespace: 'n' },
  ]) {
    expect((await on.patch(id, { context })).status).toBe(422);
  }
  expect(await recorded(id)).toEqual(before);
});

// Without the rule, the next three fail with AsyncRequired, 422 and 202.
it('27d: does not change a host after its plan changed in the catalog if a PATCH changes neither plan nor parameters', async () => {
  const id = await on.newInstance({ parameters: { egress: 'none' } });
  // As the plan was when the host was created.
  await setHost(id, { memory_mib: 512, idle: 'run' });
  const before = (await recorded(id)).host;
  const context = { instance_name: 'renamed' };
  for (const more of [{}, { plan_id: ids.plan, parameters: { egress: 'none' } }]) {
    const answer = await on.patch(id, { context, ...more }, '');
    expect([answer.status, answer.body]).toEqual([200, {}]);
  }
  expect((await recorded(id)).context).toMatchObject(context);
  expect((await recorded(id)).host).toEqual(before);
  // A request that changes something applies the plan's current definition.
  expect((await on.patch(id, { parameters: { egress: null } })).status).toBe(200);
  expect((await recorded(id)).host?.shape.memoryMib).toBe(768);
});

it('27e: renames an expired instance but refuses every other change', async () => {
  const id = await on.newInstance({ parameters: { expires_after: '1h' } });
  await on.broker.database('instances').where({ osb_id: id }).update({ expires_at: new Date() });
  await on.broker.expireInstances();
  const expired = () => on.broker.database('instances').where({ osb_id: id, state: 'expired' }).first('id');
  await eventually('it has expired', expired);
  const context = { instance_name: 'renamed' };
  const answer = await on.patch(id, { context, plan_id: ids.plan }, '');
  expect([answer.status, answer.body]).toEqual([200, {}]);
  expect((await recorded(id)).context).toMatchObject(context);
  for (const change of [{ plan_id: ids.otherPlan }, { parameters: { egress: 'none' } }]) {
    expect([change, (await on.patch(id, change)).status]).toEqual([change, 422]);
  }
});

it('27f: renames an instance whose host is in quarantine and does not change the host', async () => {
  const id = await on.newInstance();
  await setHost(id, { quarantined_at: new Date() });
  const context = { instance_name: 'renamed' };
  expect((await on.patch(id, { context })).status).toBe(200);
  const before = await recorded(id);
  expect(before.context).toMatchObject(context);
  const answer = await on.patch(id, { plan_id: ids.otherPlan, context: { instance_name: 'again' } });
  expect(answer.status).toBe(422);
  expect(answer.body['description']).toContain('differs from its manifest');
  expect(await recorded(id)).toEqual(before);
});

it('28a: repairs by a later update an instance that an earlier one broke', async () => {
  const id = await on.newInstance();
  // Neither the update nor its rollback succeeds: the host is out of reach.
  on.faults.fail('connect', 8);
  const route = `${instance(id)}?${accepting}`;
  const change = { service_id: ids.service, plan_id: ids.otherPlan };
  on.operationOf(await on.ask('patch', route, change, { wait: false }));
  await on.endedWithoutBackoff(id);
  expect((await on.last(id)).body).toMatchObject({ state: 'failed', instance_usable: false });
  expect((await on.patch(id, { plan_id: ids.otherPlan })).status).toBe(200);
  expect(await recorded(id)).toMatchObject({
    plan_id: ids.otherPlan,
    host: { state: 'running', planName: 'large' },
  });
});

it('28b: does not trust previous_values', async () => {
  const id = await on.newInstance();
  const previous_values = { plan_id: ids.otherPlan, service_id: 'unknown', organization_id: 'another' };
  await hasNoEffect(id, { plan_id: ids.plan, previous_values });
  expect((await on.patch(id, { plan_id: ids.otherPlan, previous_values })).status).toBe(200);
  expect(await recorded(id)).toMatchObject({ plan_id: ids.otherPlan });
});
